"""A backfill is watched to its end, through moments in which nothing answers."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from dagster import DagsterInstance
from dagster._daemon.types import DaemonHeartbeat
from sqlalchemy.exc import OperationalError

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.sync_log import store_entry
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.backfill_page import UnknownBackfillError
from kpi_pipeline.services.backfill_watch import patiently, watch_backfill
from kpi_pipeline.services.dagster_page import PageSilentError
from kpi_pipeline.services.running_dagster import RunningDagster
from kpi_pipeline_tests.cli.backfills import (
    LAUNCHED,
    NOT_FOUND,
    Clock,
    ToldPage,
    entry,
    launched_run,
    told,
)
from kpi_pipeline_tests.db.stocked import imported, record
from kpi_pipeline_tests.orchestration.installation import temporary_instance

SILENT = PageSilentError("Dagster's page does not answer.")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def instance() -> Iterator[DagsterInstance]:
    with temporary_instance() as opened:
        yield opened


@pytest.fixture
def watched(app: AppContext, clock: Clock) -> AppContext:
    """The app at the test's own hours."""
    return AppContext(app.settings, app.engine, app.vault, clock.now)


def _beat(instance: DagsterInstance, at: datetime) -> None:
    instance.add_daemon_heartbeat(DaemonHeartbeat(at.timestamp(), "BACKFILL", "a-daemon"))


def test_it_ends_with_the_backfill_and_tells_its_calls(
    watched: AppContext,
    instance: DagsterInstance,
    clock: Clock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _beat(instance, LAUNCHED)
    imported(watched.engine, watched.vault, record(1, "Heron"))
    run = launched_run(instance, {"dagster/backfill": "abcdefgh"})
    with watched.engine.begin() as connection:
        store_entry(connection, entry("heron", run_id=run.run_id, api_calls=5))
        store_entry(connection, entry("heron", run_id="a-nightly-run", api_calls=100))
    page = ToldPage(
        told("REQUESTED", [(10, 0, 0)]), SILENT, told("COMPLETED_SUCCESS", [(10, 10, 0)])
    )

    status = watch_backfill(watched, instance, RunningDagster(page, ()), "abcdefgh", clock.sleep)

    assert (status.name, status.filled, clock.slept()) == ("COMPLETED_SUCCESS", 10, 4)
    assert capsys.readouterr().err.splitlines() == [
        "0 of 10 partitions done, 10 left; 5 API calls; time left not known yet",
        "10 of 10 partitions done, 0 left; 5 API calls",
    ]


def test_a_page_that_stays_away_is_told_after_a_minute(
    watched: AppContext, instance: DagsterInstance, clock: Clock
) -> None:
    page = ToldPage(told("REQUESTED"), SILENT)
    with pytest.raises(PageSilentError):
        watch_backfill(watched, instance, RunningDagster(page, ()), "abcdefgh", clock.sleep)
    assert 60 <= clock.slept() < 65


def test_a_backfill_that_vanishes_is_told_at_once(
    watched: AppContext, instance: DagsterInstance, clock: Clock
) -> None:
    page = ToldPage(told("REQUESTED"), NOT_FOUND)
    with pytest.raises(UnknownBackfillError):
        watch_backfill(watched, instance, RunningDagster(page, ()), "abcdefgh", clock.sleep)
    assert clock.slept() == 2


def test_a_daemon_that_falls_silent_is_told_after_two_minutes(
    watched: AppContext, instance: DagsterInstance, clock: Clock
) -> None:
    _beat(instance, LAUNCHED + timedelta(seconds=30))
    page = ToldPage(told("REQUESTED"))
    with pytest.raises(KpiError, match=r"no sign of life for 122 s.*`kpi up`"):
        watch_backfill(watched, instance, RunningDagster(page, ()), "abcdefgh", clock.sleep)
    assert clock.slept() == 152


def test_a_daemon_that_has_told_nothing_yet_has_two_minutes_to_do_so(
    watched: AppContext, instance: DagsterInstance, clock: Clock
) -> None:
    instance.wipe_daemon_heartbeats()
    page = ToldPage(told("REQUESTED"))
    with pytest.raises(KpiError, match="no sign of life for 122 s"):
        watch_backfill(watched, instance, RunningDagster(page, ()), "abcdefgh", clock.sleep)


def test_a_database_that_is_out_of_reach_is_tried_for_a_minute(clock: Clock) -> None:
    def ask() -> str:
        if clock.slept() < 30:
            raise OperationalError("SELECT 1", None, OSError("made up"))
        return "there again"

    assert patiently(ask, clock.now, clock.sleep) == "there again"


def test_a_database_that_stays_out_of_reach_is_told_in_a_sentence(clock: Clock) -> None:
    def ask() -> None:
        raise OperationalError("SELECT 1", None, OSError("made up"))

    with pytest.raises(KpiError) as error:
        patiently(ask, clock.now, clock.sleep)
    assert (
        str(error.value) == "The database has been out of reach for a minute. Check that it runs."
    )
    assert clock.slept() == 60
