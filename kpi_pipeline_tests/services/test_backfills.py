"""Backfills on Dagster's page: launched, read, and watched until they end."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pytest
from dagster import DagsterInstance
from dagster._daemon.types import DaemonHeartbeat
from sqlalchemy.exc import OperationalError

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.sync_log import store_entry
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.backfills import (
    BackfillStatus,
    BackfillTarget,
    UnknownBackfillError,
    backfill_address,
    launch_backfill,
    read_status,
    read_target,
    watch_backfill,
)
from kpi_pipeline.services.dagster_page import DagsterPage, PageSilentError
from kpi_pipeline.services.running_dagster import RunningDagster
from kpi_pipeline_tests.agency import ASSETS
from kpi_pipeline_tests.bison_sandbox.running import Stage
from kpi_pipeline_tests.cli.running import closed_port
from kpi_pipeline_tests.db.stocked import imported, record
from kpi_pipeline_tests.orchestration.installation import temporary_instance
from kpi_pipeline_tests.services.invented_backfills import (
    LAUNCHED,
    Clock,
    entry,
    launched_run,
    target,
)

NOT_FOUND = {"partitionBackfillOrError": {"__typename": "BackfillNotFoundError"}}
SILENT = PageSilentError("Dagster's page does not answer.")
UNREACHABLE = OperationalError("SELECT 1", None, OSError("made up"))


def answer(state: str, *counts: tuple[int, int, int], **changed: object) -> dict[str, Any]:
    """Dagster's answer about a backfill: targeted, filled and failed partitions by asset."""
    names = ("numPartitionsTargeted", "numPartitionsMaterialized", "numPartitionsFailed")
    assets = [dict(zip(names, it, strict=True)) for it in counts or [(10, 0, 0)]]
    return {
        "partitionBackfillOrError": {
            "__typename": "PartitionBackfill",
            "status": state,
            "timestamp": LAUNCHED.timestamp(),
            "endTimestamp": None,
            "error": None,
            "assetBackfillData": {"assetBackfillStatuses": assets},
            **changed,
        }
    }


class AnsweringPage(DagsterPage):
    """A page that gives these answers one after the other, and repeats the last one.

    An exception among them is raised. `queries` holds the variables of each query.
    """

    def __init__(self, *answers: Mapping[str, Any] | Exception) -> None:
        super().__init__("http://127.0.0.1:3000")
        self._answers = list(answers)
        self.queries: list[Mapping[str, Any]] = []

    def query(
        self, text: str, variables: Mapping[str, object], *, timeout: float = 60
    ) -> dict[str, Any]:
        self.queries.append(variables)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)


def test_a_backfill_is_launched_for_each_asset_and_each_pair_of_client_and_date() -> None:
    launched = {"__typename": "LaunchBackfillSuccess", "backfillId": "abcdefgh"}
    page = AnsweringPage({"launchPartitionBackfill": launched})
    dates = [date(2026, 3, 1), date(2026, 3, 2)]
    of_two = BackfillTarget({"heron": dates, "otter": dates})

    assert launch_backfill(page, of_two) == "abcdefgh"

    (query,) = page.queries
    assert query["params"]["assetSelection"] == [{"path": [asset]} for asset in ASSETS]
    assert query["params"]["partitionNames"] == [
        "2026-03-01|heron",
        "2026-03-02|heron",
        "2026-03-01|otter",
        "2026-03-02|otter",
    ]
    assert backfill_address(page, "abcdefgh") == "http://127.0.0.1:3000/runs/b/abcdefgh"


def test_a_backfill_that_dagster_rejects_is_an_error_with_its_reason() -> None:
    refused = {"__typename": "PythonError", "message": "no such partition: 2019-01-01|heron"}
    page = AnsweringPage({"launchPartitionBackfill": refused})
    with pytest.raises(KpiError) as error:
        launch_backfill(page, target("heron"))
    assert str(error.value) == (
        "Dagster did not start the backfill: no such partition: 2019-01-01|heron"
    )


def test_a_partition_counts_once_and_as_filled_only_when_each_asset_is() -> None:
    page = AnsweringPage(answer("REQUESTED", (10, 7, 1), (10, 6, 2), (10, 6, 1)))
    found = read_status(page, "abcdefgh")
    assert (found.targeted, found.filled, found.failed, found.left) == (10, 6, 2, 2)
    assert not found.ended
    assert found.ended_at is None
    assert page.queries == [{"id": "abcdefgh"}]


@pytest.mark.parametrize(
    ("name", "ended", "broken_off"),
    [
        ("REQUESTED", False, False),
        ("CANCELING", False, False),
        ("FAILING", False, False),
        ("COMPLETED_SUCCESS", True, False),
        ("COMPLETED_FAILED", True, False),
        ("CANCELED", True, True),
        ("FAILED", True, True),
    ],
)
def test_a_backfill_has_ended_when_dagster_does_nothing_more_for_it(
    name: str, ended: bool, broken_off: bool
) -> None:
    page = AnsweringPage(
        answer(name, endTimestamp=1_800_000_000.0, error={"message": "a daemon's error"})
    )
    found = read_status(page, "abcdefgh")
    assert (found.ended, found.broken_off) == (ended, broken_off)
    assert found.ended_at == datetime.fromtimestamp(1_800_000_000, UTC)
    assert found.error == "a daemon's error"


def targeting(partitions: Sequence[str] | None) -> dict[str, Any]:
    """Dagster's answer about the target of a backfill."""
    targeted = None if partitions is None else {"partitionKeys": list(partitions)}
    return {
        "partitionBackfillOrError": {
            "__typename": "PartitionBackfill",
            "assetBackfillData": {"rootTargetedPartitions": targeted},
        }
    }


def test_a_target_is_read_back_with_the_dates_of_each_client() -> None:
    keys = ["2026-03-01|heron", "2026-03-02|heron", "2026-03-02|otter-2"]
    page = AnsweringPage(targeting(keys))
    found = read_target(page, "abcdefgh")
    assert found.dates == {
        "heron": [date(2026, 3, 1), date(2026, 3, 2)],
        "otter-2": [date(2026, 3, 2)],
    }
    assert found.partitions == 3


@pytest.mark.parametrize("partitions", [None, [], ["2026-03-01"]])
def test_a_backfill_that_is_not_over_clients_and_dates_is_rejected(
    partitions: list[str] | None,
) -> None:
    page = AnsweringPage(targeting(partitions))
    with pytest.raises(KpiError, match="cannot say which clients and dates backfill abcdefgh"):
        read_target(page, "abcdefgh")


def test_an_unknown_backfill_is_named() -> None:
    for read in (read_status, read_target):
        with pytest.raises(UnknownBackfillError, match="Dagster knows no backfill abcdefgh"):
            read(AnsweringPage(NOT_FOUND), "abcdefgh")


def test_a_backfill_that_dagster_cannot_read_is_an_error_with_its_reason() -> None:
    broken = {"__typename": "PythonError", "message": "the definitions do not load"}
    with pytest.raises(KpiError, match="backfill abcdefgh: the definitions do not load"):
        read_status(AnsweringPage({"partitionBackfillOrError": broken}), "abcdefgh")


def test_a_page_that_is_not_running_is_silent() -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    with pytest.raises(PageSilentError) as error:
        DagsterPage(url).query("{ version }", {})
    assert str(error.value) == (
        f"Dagster's page at {url} does not answer (ConnectError). Is `kpi up` running?"
    )


def test_another_server_at_the_pages_address_counts_as_silent(stage: Stage) -> None:
    with pytest.raises(PageSilentError, match="does not answer"):
        DagsterPage(stage.url).query("{ version }", {})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def instance() -> Iterator[DagsterInstance]:
    with temporary_instance() as opened:
        yield opened


@pytest.fixture
def watched(app: AppContext, clock: Clock) -> AppContext:
    """The installation at the test's own time."""
    return AppContext(app.settings, app.engine, app.vault, clock.now)


def _beat(instance: DagsterInstance, at: datetime) -> None:
    instance.add_daemon_heartbeat(DaemonHeartbeat(at.timestamp(), "BACKFILL", "a-daemon"))


def _watch(
    watched: AppContext, instance: DagsterInstance, clock: Clock, page: AnsweringPage
) -> list[tuple[BackfillStatus, int]]:
    """What is shown until the backfill ends."""
    shown: list[tuple[BackfillStatus, int]] = []
    last = watch_backfill(
        watched,
        instance,
        RunningDagster(page, ()),
        "abcdefgh",
        lambda status, api_calls: shown.append((status, api_calls)),
        clock.sleep,
    )
    assert shown[-1][0] == last
    return shown


def test_each_status_is_shown_with_its_calls_until_the_backfill_ends(
    watched: AppContext, instance: DagsterInstance, clock: Clock
) -> None:
    _beat(instance, LAUNCHED)
    imported(watched.engine, watched.vault, record(1, "Heron"))
    run = launched_run(instance, {"dagster/backfill": "abcdefgh"})
    with watched.engine.begin() as connection:
        store_entry(connection, entry("heron", run_id=run.run_id, api_calls=5))
        store_entry(connection, entry("heron", run_id="a-nightly-run", api_calls=100))
    page = AnsweringPage(
        answer("REQUESTED", (10, 0, 0)), SILENT, answer("COMPLETED_SUCCESS", (10, 10, 0))
    )

    shown = _watch(watched, instance, clock, page)

    assert [(it.name, it.filled, calls) for it, calls in shown] == [
        ("REQUESTED", 0, 5),
        ("COMPLETED_SUCCESS", 10, 5),
    ]
    assert clock.slept() == 4


def test_a_page_that_stays_silent_is_an_error_after_a_minute(
    watched: AppContext, instance: DagsterInstance, clock: Clock
) -> None:
    with pytest.raises(PageSilentError):
        _watch(watched, instance, clock, AnsweringPage(answer("REQUESTED"), SILENT))
    assert 60 <= clock.slept() < 65


def test_a_backfill_that_vanishes_is_an_error_at_once(
    watched: AppContext, instance: DagsterInstance, clock: Clock
) -> None:
    with pytest.raises(UnknownBackfillError):
        _watch(watched, instance, clock, AnsweringPage(answer("REQUESTED"), NOT_FOUND))
    assert clock.slept() == 2


def test_a_daemon_without_heartbeats_is_an_error_after_two_minutes(
    watched: AppContext, instance: DagsterInstance, clock: Clock
) -> None:
    _beat(instance, LAUNCHED)

    def beat_once_more() -> None:
        if clock.slept() == 30:
            _beat(instance, clock.now())

    clock.then = beat_once_more
    with pytest.raises(KpiError, match=r"no heartbeat for 122 s.*`kpi up`"):
        _watch(watched, instance, clock, AnsweringPage(answer("REQUESTED")))
    assert clock.slept() == 152


def test_a_daemon_that_has_just_started_has_two_minutes_for_its_first_heartbeat(
    watched: AppContext, instance: DagsterInstance, clock: Clock
) -> None:
    instance.wipe_daemon_heartbeats()
    with pytest.raises(KpiError, match="no heartbeat for 122 s"):
        _watch(watched, instance, clock, AnsweringPage(answer("REQUESTED")))


def test_a_database_that_is_unreachable_for_a_moment_interrupts_nothing(
    watched: AppContext, instance: DagsterInstance, clock: Clock
) -> None:
    _beat(instance, LAUNCHED)
    page = AnsweringPage(answer("REQUESTED"), *[UNREACHABLE] * 20, answer("COMPLETED_SUCCESS"))
    shown = _watch(watched, instance, clock, page)
    assert [it.name for it, _ in shown] == ["REQUESTED", "COMPLETED_SUCCESS"]


def test_a_database_that_stays_unreachable_is_a_sentence_after_a_minute(
    watched: AppContext, instance: DagsterInstance, clock: Clock
) -> None:
    with pytest.raises(KpiError) as error:
        _watch(watched, instance, clock, AnsweringPage(UNREACHABLE))
    assert str(error.value) == "The database has been unreachable for a minute. Check that it runs."
    assert clock.slept() == 60
