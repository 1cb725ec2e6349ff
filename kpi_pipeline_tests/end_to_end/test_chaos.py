"""A backfill of 26 clients × 90 days during which everything goes wrong."""

import os
import re
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

from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.db.server.retry import is_away
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.domain.columns import FACT_COUNTS
from kpi_pipeline_tests.agency import ASSETS, SERIES
from kpi_pipeline_tests.end_to_end.running import RunningAgency, Target, running_agency
from kpi_pipeline_tests.expected import Row
from kpi_pipeline_tests.restartable import RestartableServer, restartable_server

pytestmark = [pytest.mark.long, pytest.mark.weekly]

Key = tuple[str, date]

_DATE_COLUMNS = {"raw_bison_stats": "date", "client_metrics": "metric_date"}
_OBSERVE_EVERY_SECONDS = 0.2
_DAYS = 90
_AWAY_SECONDS = 3.0


@pytest.fixture
def server() -> Iterator[RestartableServer]:
    with restartable_server() as server:
        yield server


@pytest.fixture
def agency(
    server: RestartableServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[RunningAgency]:
    """An agency on a server of its own, whose Email Bison takes its time for the series."""
    monkeypatch.setenv("KPI_BISON_TIMEOUT_SECONDS", "4")
    # Quick at all else: the expectation asks for some 12,000 totals.
    options = {"clients": 26, "calls-per-second": 0, "latency": 0}
    with running_agency(server.url, server.administer, tmp_path / "state", options) as agency:
        # A run asks for all of its clients side by side: for so long it has written nothing.
        agency.bison.fault("slow", path=SERIES, seconds=3)
        yield agency


class Observer:
    """Reads the database again and again.

    `versions` holds each row of a table as often as it was written, `rows` how many rows of
    client_metrics each client had at the last reading, and `sizes` every such number at any
    reading. `failed_readings` met no database.
    """

    def __init__(self, url: URL) -> None:
        self.versions: Mapping[str, dict[Key, list[Row]]] = {
            table: defaultdict(list) for table in _DATE_COLUMNS
        }
        self.rows: Mapping[str, int] = {}
        self.sizes: set[int] = set()
        self.failed_readings = 0
        self._engine = open_engine(url, pool_size=1)
        self._writers: dict[str, set[str]] = defaultdict(set)
        self._error: Exception | None = None

    def raise_error(self) -> None:
        """Raise the error that ended the readings, if any."""
        if self._error is not None:
            raise self._error

    def watch(self, over: threading.Event) -> None:
        """Read until it is over."""
        try:
            while not over.wait(_OBSERVE_EVERY_SECONDS):
                self._read()
        except Exception as error:  # noqa: BLE001 - raised in the test's own thread
            self._error = error
        finally:
            self._engine.dispose()

    def _read(self) -> None:
        """Read once, in one snapshot."""
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
            self.failed_readings += 1
        self.sizes |= set(self.rows.values())

    def _note(self, connection: Connection, table: str) -> None:
        # Each version of a row has the id of the transaction that wrote it: rows of known ones
        # have been read.
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

    def __init__(self, agency: RunningAgency, first: Sequence[str], dates: Sequence[date]) -> None:
        # The keys of the first are about to be rejected.
        self._rows = agency.expected(dates, first)
        others = [key for key in agency.workspaces if key not in first]
        self._asking = threading.Thread(
            target=lambda: self._rows.update(agency.expected(dates, others))
        )
        self._asking.start()

    def rows(self) -> Mapping[Key, Row]:
        """Wait for all answers."""
        self._asking.join()
        return self._rows


def final_outcome(agency: RunningAgency, backfill: str) -> str:
    """How the backfill ended, once the runs have ended that retry its failures."""
    outcome = agency.end_of(backfill)
    agency.poll(agency.is_at_rest, "the end of all runs", seconds=900, every=2)
    return outcome


def kill_a_run(agency: RunningAgency) -> str:
    """Kill the process of a run that has yet to write its rows; its id."""
    killed: list[str] = []

    def kill() -> bool:
        for run in agency.runs("STARTED"):
            pid = re.search(r"Started process for run \(pid: (\d+)\)", str(agency.log_of(run.id)))
            if pid and not killed and not run.ends & filled_clients(agency):
                os.kill(int(pid[1]), signal.SIGKILL)
                killed.append(run.id)
        return bool(killed)

    agency.poll(kill, "a run at work")
    return killed[0]


def last_try_of(agency: RunningAgency, run_id: str) -> str:
    """How the last run ended that does the work of this one."""
    successors = {run.parent: run for run in agency.runs()}
    run = successors[run_id]
    while run.id in successors:
        run = successors[run.id]
    return run.status


def restart(agency: RunningAgency, server: RestartableServer, away: float) -> None:
    """Stop the server while runs are at work, and start it again."""
    agency.poll(lambda: bool(agency.runs("STARTED")), "a run at work")
    server.stop()
    time.sleep(away)
    server.start()


def red(agency: RunningAgency, dates: Sequence[date]) -> dict[str, set[str]]:
    """The failed partitions of each asset."""
    return {asset: agency.failed_partitions(asset, dates) for asset in ASSETS}


def filled_clients(agency: RunningAgency) -> set[str]:
    """The clients that have rows."""
    return {row.workspace for row in agency.sql("SELECT DISTINCT workspace FROM client_metrics")}


def failed_clients(agency: RunningAgency) -> dict[str, str]:
    """The errors in sync_log, by client."""
    rows = agency.sql("SELECT workspace, error FROM sync_log WHERE status = 'error'")
    return {row.workspace: row.error for row in rows}


def failed_runs(agency: RunningAgency) -> str:
    """The failed runs and the ends of their logs, for the message of a failed test."""
    failed = agency.runs("FAILURE", "CANCELED")
    return "\n".join(f"{run}: {agency.log_of(run.id)[-10:]}" for run in failed)


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
    agency: RunningAgency, server: RestartableServer
) -> None:
    dates = days_between(agency.today - timedelta(days=_DAYS), agency.today - timedelta(days=1))
    # The last in the grid are the last to be worked on.
    rejected, stalled = bad = agency.keyed[-2:]
    expectation = Expectation(agency, bad, dates)

    with observing(agency.app.engine.url) as observer:

        def wait_for(clients: int) -> None:
            agency.poll(lambda: len(observer.rows) >= clients, f"the rows of {clients} clients")

        all_clients: Target = dict.fromkeys(agency.workspaces, dates)
        backfill = agency.launch_backfill(all_clients)
        killed = kill_a_run(agency)
        agency.revoke(rejected)
        agency.bison.fault("stall", workspace_id=agency.ids[stalled])
        wait_for(6)
        restart(agency, server, away=0)
        wait_for(12)
        restart(agency, server, away=_AWAY_SECONDS)
        assert len(observer.rows) < 24, "all was over before"
        assert final_outcome(agency, backfill) == "COMPLETED_FAILED"

        missing = {f"{day}|{key}" for key in bad for day in dates}
        assert red(agency, dates) == dict.fromkeys(ASSETS, missing), failed_runs(agency)
        expected = expectation.rows()
        assert agency.rows().keys() == {key for key in expected if key[0] not in bad}
        errors = failed_clients(agency)
        assert errors.keys() == set(bad)
        assert "401" in errors[rejected]
        assert "time-out (4 s)" in errors[stalled]
        # A run that lost the database is started again as well.
        assert last_try_of(agency, killed) == "SUCCESS"

        agency.restore(rejected)
        agency.control("DELETE", "faults")
        backfill = agency.launch_backfill(dict.fromkeys(bad, dates))
        assert final_outcome(agency, backfill) == "COMPLETED_SUCCESS"
        assert red(agency, dates) == {asset: set() for asset in ASSETS}
        agency.poll(lambda: len(observer.rows) == 26, "the last reading")

    observer.raise_error()
    assert observer.failed_readings > 0
    assert observer.sizes == {_DAYS}, "a client's rows are written together"
    assert observer.versions["client_metrics"].keys() == expected.keys()
    assert agency.rows().keys() == expected.keys()
    assert all_wrong(observer, expected) == []
