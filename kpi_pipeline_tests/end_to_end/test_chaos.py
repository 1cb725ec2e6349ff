"""A backfill of 26 clients × 90 days, in the middle of which everything goes wrong."""

import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import pytest
from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.db.engine import open_engine
from kpi_pipeline.db.retry import is_away
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.domain.columns import FACT_COUNTS
from kpi_pipeline.services.backfills import BackfillTarget, launch_backfill, read_status
from kpi_pipeline_tests.end_to_end.agency import ASSETS, Agency
from kpi_pipeline_tests.end_to_end.runs import (
    at_rest,
    process_of,
    runs,
    tries_after,
    what_failed,
)
from kpi_pipeline_tests.end_to_end.starting import running_agency
from kpi_pipeline_tests.expected import Row
from kpi_pipeline_tests.restartable import RestartableServer, restartable_server

pytestmark = pytest.mark.long

Key = tuple[str, date]

_DATE_COLUMNS = {"raw_bison_stats": "date", "client_metrics": "metric_date"}
_LOOK_EVERY_SECONDS = 0.2
_DAYS = 90
_AWAY_SECONDS = 3.0
_DEADLINE_SECONDS = 900.0
_SERIES = "/api/workspaces/v1.1/line-area-chart-stats"


@pytest.fixture
def server() -> Iterator[RestartableServer]:
    with restartable_server() as server:
        yield server


@pytest.fixture
def agency(
    server: RestartableServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Agency]:
    """An agency on a server of its own, whose Email Bison takes its time for the series."""
    monkeypatch.setenv("KPI_BISON_TIMEOUT_SECONDS", "4")
    # Quick at all else: the expectation asks for some 12,000 totals.
    options = {"clients": 26, "calls-per-second": 0, "latency": 0}
    with running_agency(server.url, server.administer, tmp_path / "state", options) as agency:
        agency.control("POST", "faults", {"kind": "slow", "path": _SERIES, "seconds": 1.5})
        yield agency


class Observer:
    """What was seen so far.

    `versions` holds each row of a table as often as it was written, `rows` how many rows of
    client_metrics each client had at the last look, and `sizes` every such number at any look.
    `blind_looks` met no database.
    """

    def __init__(self, url: URL) -> None:
        self.versions: Mapping[str, dict[Key, list[Row]]] = {
            table: defaultdict(list) for table in _DATE_COLUMNS
        }
        self.rows: Mapping[str, int] = {}
        self.sizes: set[int] = set()
        self.blind_looks = 0
        self._engine = open_engine(url, pool_size=1)
        self._writers: dict[str, set[str]] = defaultdict(set)
        self._trouble: Exception | None = None

    def require_sight(self) -> None:
        """Raise what it could not bear, if anything."""
        if self._trouble is not None:
            raise self._trouble

    def watch(self, over: threading.Event) -> None:
        """Look all the time, until it is over."""
        try:
            while not over.wait(_LOOK_EVERY_SECONDS):
                self._look()
        except Exception as error:  # noqa: BLE001 - raised in the test's own thread
            self._trouble = error
        finally:
            self._engine.dispose()

    def _look(self) -> None:
        """Look once, at one moment of the whole database."""
        try:
            with self._engine.connect() as connection:
                connection.execution_options(isolation_level="REPEATABLE READ")
                for table in _DATE_COLUMNS:
                    self._note(connection, table)
                counts = text("SELECT workspace, count(*) AS n FROM client_metrics GROUP BY 1")
                self.rows = {row.workspace: row.n for row in connection.execute(counts)}
        except DBAPIError as error:
            if not is_away(error):
                raise
            self.blind_looks += 1
        self.sizes |= set(self.rows.values())

    def _note(self, connection: Connection, table: str) -> None:
        # Each version of a row bears the transaction that wrote it: what the known ones wrote has
        # been seen.
        found = set(connection.scalars(text(f"SELECT DISTINCT xmin::text FROM {table}")))
        new = found - self._writers[table]
        if not new:
            return
        statement = text(f"SELECT * FROM {table} WHERE xmin::text = ANY(:new)")
        for row in connection.execute(statement, {"new": list(new)}).mappings():
            self.versions[table][row["workspace"], row[_DATE_COLUMNS[table]]].append(dict(row))
        self._writers[table] |= new


@contextmanager
def observing(url: URL) -> Iterator[Observer]:
    """Watch the database at `url` while the block lasts."""
    observer, over = Observer(url), threading.Event()
    watcher = threading.Thread(target=observer.watch, args=(over,))
    watcher.start()
    try:
        yield observer
    finally:
        over.set()
        watcher.join()


def wrong(seen: Mapping[Key, Sequence[Row]], expected: Mapping[Key, Row]) -> list[str]:
    """Where any version of any row was not as expected."""
    return [
        f"{key} {column}: {row.get(column)!r} is not {value!r}"
        for key, versions in seen.items()
        for row in versions
        for column, value in expected[key].items()
        if row.get(column) != value
    ]


class Expectation:
    """What `client_metrics` must hold, asked for while the backfill is at work."""

    def __init__(self, agency: Agency, first: Sequence[str], dates: Sequence[date]) -> None:
        # The keys of the first are about to be rejected.
        self._rows = agency.expected(first, dates)
        others = [key for key in agency.grid if key not in first]
        self._asking = threading.Thread(
            target=lambda: self._rows.update(agency.expected(others, dates))
        )
        self._asking.start()

    def rows(self) -> Mapping[Key, Row]:
        """Wait until all is told."""
        self._asking.join()
        return self._rows


class Backfill:
    """A backfill of some clients × the dates, launched as the page does."""

    def __init__(self, agency: Agency, workspaces: Sequence[str], dates: Sequence[date]) -> None:
        self._agency = agency
        target = BackfillTarget(ASSETS, dict.fromkeys(workspaces, dates))
        self._id = launch_backfill(agency.page, target)

    def outcome(self) -> str:
        """Wait until it has ended, and everything is at rest; how it ended."""
        page = self._agency.page
        self._agency.poll(
            lambda: read_status(page, self._id).ended and at_rest(page),
            "the end of the backfill",
            _DEADLINE_SECONDS,
            every=2.0,
        )
        return read_status(page, self._id).name


def kill_a_run(agency: Agency, bad: Sequence[str]) -> str:
    """Kill the process of a run that has yet to write its rows, all of good clients; its id."""
    killed: list[str] = []

    def kill() -> bool:
        for run in runs(agency.page, ["STARTED"]):
            if {run.first_workspace, run.last_workspace} & set(bad):
                continue
            pid = process_of(agency.page, run.id)
            if pid and not killed and run.first_workspace not in filled_clients(agency):
                os.kill(pid, signal.SIGKILL)
                killed.append(run.id)
        return bool(killed)

    agency.poll(kill, "a run at work")
    return killed[0]


def restart(agency: Agency, server: RestartableServer, away: float) -> None:
    """Stop the server while runs are at work, and start it again."""
    agency.poll(lambda: bool(runs(agency.page, ["STARTED"])), "a run at work")
    server.stop()
    time.sleep(away)
    server.start()


def red(agency: Agency, dates: Sequence[date]) -> dict[str, set[str]]:
    """The failed partitions of each asset."""
    return {asset: agency.failed_partitions(asset, dates) for asset in ASSETS}


def filled_clients(agency: Agency) -> set[str]:
    """The clients that have rows."""
    with agency.app.engine.connect() as connection:
        return set(connection.scalars(text("SELECT DISTINCT workspace FROM client_metrics")))


def failed_clients(agency: Agency) -> dict[str, str]:
    """What sync_log tells of clients whose work failed."""
    with agency.app.engine.connect() as connection:
        statement = text("SELECT workspace, error FROM sync_log WHERE status = 'error'")
        return {row.workspace: row.error for row in connection.execute(statement)}


def all_wrong(observer: Observer, expected: Mapping[Key, Row]) -> list[str]:
    """Where any version of a fact or of a row of client_metrics was not as it must be."""
    metrics, facts = observer.versions["client_metrics"], observer.versions["raw_bison_stats"]
    days = {
        key: {"sent": row["emails_sent_today"], "interested": row["positive_replies_today"]}
        for key, row in expected.items()
    }
    # The other counts, and those of the days before the first, are in the windows' sums.
    changed = [
        f"{key} was not the same at all times"
        for key, versions in facts.items()
        if len({tuple(row[name] for name in FACT_COUNTS) for row in versions}) > 1
    ]
    of_the_dates = {key: versions for key, versions in facts.items() if key in days}
    return wrong(metrics, expected) + wrong(of_the_dates, days) + changed


@pytest.mark.timeout(2_400)
def test_a_backfill_survives_a_killed_run_a_restarted_database_and_two_bad_clients(
    agency: Agency, server: RestartableServer
) -> None:
    dates = days_between(agency.today - timedelta(days=_DAYS), agency.today - timedelta(days=1))
    # The last in the grid are the last to be worked on.
    rejected, stalled = bad = [key for key in agency.grid if agency.own_key(key)][-2:]
    expectation = Expectation(agency, bad, dates)

    with observing(agency.app.engine.url) as observer:

        def wait_for(clients: int) -> None:
            agency.poll(lambda: len(observer.rows) >= clients, f"the rows of {clients} clients")

        backfill = Backfill(agency, agency.grid, dates)
        wait_for(1)
        agency.control("POST", "keys/revoke", {"workspace_id": agency.ids[rejected]})
        agency.control("POST", "faults", {"kind": "stall", "workspace_id": agency.ids[stalled]})
        wait_for(3)
        killed = kill_a_run(agency, bad)
        wait_for(6)
        restart(agency, server, away=0)
        wait_for(12)
        restart(agency, server, away=_AWAY_SECONDS)
        assert len(observer.rows) < 24, "all was over before"
        assert backfill.outcome() == "COMPLETED_FAILED"

        missing = {f"{day}|{key}" for key in bad for day in dates}
        assert red(agency, dates) == dict.fromkeys(ASSETS, missing), what_failed(agency.page)
        expected = expectation.rows()
        assert agency.rows().keys() == {key for key in expected if key[0] not in bad}
        errors = failed_clients(agency)
        assert errors.keys() == set(bad)
        assert "401" in errors[rejected]
        assert "time-out (4 s)" in errors[stalled]
        # A try that the database went away from is done again in its turn.
        assert tries_after(agency.page, killed)[-1:] == ["SUCCESS"]

        agency.control("POST", "keys/restore", {"workspace_id": agency.ids[rejected]})
        agency.control("DELETE", "faults")
        assert Backfill(agency, bad, dates).outcome() == "COMPLETED_SUCCESS"
        assert red(agency, dates) == {asset: set() for asset in ASSETS}
        agency.poll(lambda: len(observer.rows) == 26, "the last look")

    observer.require_sight()
    assert observer.blind_looks > 0
    assert observer.sizes == {_DAYS}, "a client's rows are written together"
    assert observer.versions["client_metrics"].keys() == expected.keys()
    assert agency.rows().keys() == expected.keys()
    assert all_wrong(observer, expected) == []
