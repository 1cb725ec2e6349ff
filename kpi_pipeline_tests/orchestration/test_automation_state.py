"""The state of schedules, sensors, daemons and runs, as read from Dagster's storage."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from dagster import DagsterEvent, DagsterInstance, DagsterRunStatus
from dagster._core.scheduler.instigation import InstigatorType
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.types import DaemonHeartbeat

from kpi_pipeline.checks.automation import AutomationState, TickState, automation_problems
from kpi_pipeline.orchestration.automation import build_automation
from kpi_pipeline.orchestration.automation.state import read_automation
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.orchestration.installation import instance_in_files, temporary_instance
from kpi_pipeline_tests.orchestration.ticks import leave_tick

CHICAGO = ZoneInfo("America/Chicago")


@pytest.fixture
def own() -> Iterator[DagsterInstance]:
    with temporary_instance() as instance:
        yield instance


@pytest.fixture
def with_daemons() -> Iterator[DagsterInstance]:
    """One in memory has no daemons."""
    with instance_in_files() as instance:
        yield instance


def read(instance: DagsterInstance) -> AutomationState:
    return read_automation(instance, build_automation(load_settings()))


def of(name: str, instance: DagsterInstance) -> TickState:
    (found,) = [it for it in read(instance).ticks if it.name == name]
    return found


def local(*when: int) -> datetime:
    return datetime(*when, tzinfo=CHICAGO).astimezone(UTC)  # type: ignore[misc, arg-type]


def test_a_schedule_that_no_daemon_has_seen_is_neither_on_nor_off(
    with_daemons: DagsterInstance,
) -> None:
    found = read(with_daemons)
    assert {(it.on, it.due_since) for it in found.ticks} == {(None, None)}
    assert {it.last_heartbeat_at for it in found.daemons} == {None}
    assert {"daily_kpi_sync", "intraday_refresh", "data_checks", "alert_sensor"} <= {
        it.name for it in found.ticks
    }


@pytest.mark.parametrize(
    ("last", "due"),
    [
        (local(2026, 3, 17, 0, 1), local(2026, 3, 18, 0, 1)),
        # The night of 23 hours, and that of 25.
        (local(2026, 3, 8, 0, 1), local(2026, 3, 9, 0, 1)),
        (local(2026, 11, 1, 0, 1), local(2026, 11, 2, 0, 1)),
    ],
)
def test_a_schedule_is_due_at_the_first_moment_of_its_cron_line_after_its_last_tick(
    own: DagsterInstance, last: datetime, due: datetime
) -> None:
    leave_tick(own, "daily_kpi_sync", at=last)
    expected = TickState("daily_kpi_sync", "schedule", True, due, may_fail=0)
    assert of("daily_kpi_sync", own) == expected


def failed_of(name: str, instance: DagsterInstance) -> tuple[int, datetime | None]:
    found = of(name, instance)
    return found.failed, found.failing_since


def test_the_ticks_that_failed_in_a_row_are_counted_and_one_success_ends_the_row(
    own: DagsterInstance,
) -> None:
    minutes = [local(2026, 3, 18, 9, minute) for minute in range(0, 50, 10)]
    for at, good in zip(minutes, (False, True, False, False, True), strict=True):
        leave_tick(own, "alert_sensor", good=good, at=at, kind=InstigatorType.SENSOR)
    assert failed_of("alert_sensor", own) == (0, None)
    for at in (local(2026, 3, 18, 10, minute) for minute in range(5)):
        leave_tick(own, "alert_sensor", good=False, at=at, kind=InstigatorType.SENSOR)
        leave_tick(own, "intraday_refresh", good=True, at=at)
    assert failed_of("alert_sensor", own) == (3, minutes[-1]), "since it last was good"
    assert failed_of("intraday_refresh", own) == (0, None)


def test_a_sensor_that_fails_at_each_tick_is_not_alive_and_one_bad_tick_is_no_problem(
    own: DagsterInstance,
) -> None:
    def problems() -> list[str]:
        found = automation_problems(read(own), local(2026, 3, 18, 9, 5))
        return [f"{it['what']} {it['problem']}" for it in found if "failed" in str(it["problem"])]

    for minute in range(3):
        at = local(2026, 3, 18, 9, minute)
        leave_tick(own, "alert_sensor", good=False, at=at, kind=InstigatorType.SENSOR)
        leave_tick(own, "data_checks", good=False, at=at)
        if minute == 1:
            assert problems() == []
    leave_tick(own, "data_checks", at=local(2026, 3, 18, 9, 3))
    assert problems() == ["sensor alert_sensor failed at its last 3 ticks, for 5 min"]


def test_a_schedule_that_ticks_once_a_day_is_not_alive_after_one_failure(
    own: DagsterInstance,
) -> None:
    at = local(2026, 3, 18, 0, 1)
    for name in ("daily_kpi_sync", "retry_unanswered_checks"):
        leave_tick(own, name, good=False, at=at)
    found = list(automation_problems(read(own), at + timedelta(minutes=3)))
    failing = [(it["what"], it["problem"]) for it in found if "failed" in str(it["problem"])]
    assert failing == [("schedule daily_kpi_sync", "failed at its last tick, for 3 min")]


def test_a_tick_that_failed_is_a_tick(own: DagsterInstance) -> None:
    leave_tick(own, "intraday_refresh", good=False, at=local(2026, 3, 18, 9, 22))
    assert of("intraday_refresh", own).due_since == local(2026, 3, 18, 9, 37)


def test_a_schedule_that_is_off_is_never_due(own: DagsterInstance) -> None:
    leave_tick(own, "intraday_refresh", on=False)
    assert of("intraday_refresh", own) == TickState("intraday_refresh", "schedule", False, None)


def test_a_sensor_may_miss_ten_minutes_of_ticks(own: DagsterInstance) -> None:
    last = local(2026, 3, 18, 9, 0)
    leave_tick(own, "alert_sensor", at=last, kind=InstigatorType.SENSOR)
    found = of("alert_sensor", own)
    assert (found.on, found.due_since) == (True, last + timedelta(minutes=10))


def test_the_state_of_another_code_location_does_not_count(own: DagsterInstance) -> None:
    last = local(2026, 3, 18, 9, 22)
    leave_tick(own, "intraday_refresh", at=last)
    leave_tick(own, "intraday_refresh", at=last - timedelta(days=90), on=False, location="old")
    assert of("intraday_refresh", own).due_since == last + timedelta(minutes=15)


def test_the_state_of_a_schedule_that_no_longer_exists_is_no_problem(own: DagsterInstance) -> None:
    for name in ("hourly_refresh", "intraday_refresh"):
        leave_tick(own, name, at=local(2026, 3, 18, 9, 22))
    found = read(own)
    assert "hourly_refresh" not in {it.name for it in found.ticks}
    problems = automation_problems(found, local(2026, 3, 19, 9, 22))
    late = {str(it["what"]) for it in problems if "late" in str(it["problem"])}
    assert late == {"schedule intraday_refresh"}


def test_daemons_and_active_runs_are_read_with_their_times(with_daemons: DagsterInstance) -> None:
    heard = local(2026, 3, 18, 9, 0)
    with_daemons.add_daemon_heartbeat(DaemonHeartbeat(heard.timestamp(), "SENSOR", "one", None))
    under_way = create_run_for_test(with_daemons, status=DagsterRunStatus.STARTING)
    with_daemons.report_run_failed(
        create_run_for_test(with_daemons, status=DagsterRunStatus.STARTED)
    )
    assert read(with_daemons).runs == [], "neither has begun"
    before = datetime.now(UTC) - timedelta(seconds=1)
    began = DagsterEvent("PIPELINE_START", under_way.job_name)
    with_daemons.report_dagster_event(began, under_way.run_id)

    found = read(with_daemons)

    assert {it.name: it.last_heartbeat_at for it in found.daemons}["sensor"] == heard
    (run,) = found.runs
    assert (run.run_id, run.limit) == (under_way.run_id, timedelta(hours=2))
    assert before < run.started_at < datetime.now(UTC)
