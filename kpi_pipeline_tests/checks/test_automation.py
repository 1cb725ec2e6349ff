"""The check `automation_alive`: what is switched off, late, silent, or takes too long."""

from datetime import datetime, timedelta

import pytest

from kpi_pipeline.checks.automation import (
    ActiveRun,
    AutomationState,
    DaemonState,
    TickState,
    automation_alive,
    automation_problems,
    only_failing_one,
    stops_syncs,
)
from kpi_pipeline.checks.outcome import Outcome, Severity
from kpi_pipeline_tests.checks.support import TODAY, local

NOW = local(TODAY, 15)


def ago(**passed: float) -> datetime:
    return NOW - timedelta(**passed)


def schedule(
    name: str = "daily_kpi_sync", *, on: bool | None = True, due_since: datetime | None = None
) -> TickState:
    return TickState(name, "schedule", on, due_since)


def checked(*parts: TickState | DaemonState | ActiveRun) -> Outcome:
    return automation_alive(
        AutomationState(
            [it for it in parts if isinstance(it, TickState)],
            [it for it in parts if isinstance(it, DaemonState)],
            [it for it in parts if isinstance(it, ActiveRun)],
        ),
        NOW,
    )


def found_of(*parts: TickState | DaemonState | ActiveRun) -> list[tuple[object, object, object]]:
    found = checked(*parts)
    return [(it["what"], it["problem"], it["late_minutes"]) for it in found.problems]


def test_it_passes_and_counts_schedules_and_sensors_when_all_are_on_time() -> None:
    found = checked(
        schedule(),
        TickState("webhook_event_sensor", "sensor", True, None),
        DaemonState("scheduler", ago(minutes=1)),
        ActiveRun("0123456789abcdef", ago(minutes=20), timedelta(hours=1)),
    )
    assert found.passed
    assert found.description == (
        "All 2 schedules and sensors are on time and succeed, the daemon is running, and no run "
        "exceeds its time limit."
    )
    assert found.numbers == {"schedules_and_sensors": 2, "problems": 0}


def test_a_schedule_that_is_off_is_an_error_no_matter_how_late_it_is() -> None:
    off = schedule(on=False, due_since=ago(hours=9))
    assert checked(off).severity is Severity.ERROR
    assert found_of(off) == [("schedule daily_kpi_sync", "is switched off", None)]


@pytest.mark.parametrize("on", [True, None])
def test_a_missed_tick_is_late_by_its_minutes(on: bool | None) -> None:
    late = schedule(on=on, due_since=ago(hours=2, minutes=7))
    assert found_of(late) == [("schedule daily_kpi_sync", "is 2 h 7 min late", 127)]


def test_a_tick_may_be_five_minutes_late_and_no_more() -> None:
    assert checked(schedule(due_since=ago(minutes=5))).passed
    assert found_of(schedule(due_since=ago(minutes=5, seconds=1))) == [
        ("schedule daily_kpi_sync", "is 5 min late", 5)
    ]


def test_a_sensor_may_fail_twice_in_a_row_and_a_failing_schedule_of_the_syncs_stops_them() -> None:
    since = ago(minutes=12)
    assert checked(TickState("alert_sensor", "sensor", True, None, 2, since)).passed
    assert found_of(TickState("alert_sensor", "sensor", True, None, 3, since)) == [
        ("sensor alert_sensor", "failed at its last 3 ticks, for 12 min", 12)
    ]
    nightly = TickState("daily_kpi_sync", "schedule", True, None, 1, since, may_fail=0)
    assert stops_syncs(checked(nightly).problems)
    assert only_failing_one(checked(nightly).problems) == "daily_kpi_sync"
    assert only_failing_one(checked(nightly, DaemonState("sensor", None)).problems) is None


def test_after_downtime_a_new_daemon_has_five_minutes_to_make_up_what_was_missed() -> None:
    missed = schedule(due_since=ago(days=3))
    for since, late in ((ago(minutes=5), []), (ago(minutes=6), ["is 3 d 0 h late"])):
        state = AutomationState([missed], [], [], daemon_since=since)
        assert [it["problem"] for it in automation_problems(state, NOW)] == late


def test_a_sensor_that_the_daemon_has_not_seen_has_never_ticked() -> None:
    sensor = TickState("webhook_event_sensor", "sensor", None, None)
    assert found_of(sensor) == [
        (
            "sensor webhook_event_sensor",
            "has never ticked: is Dagster's daemon running?",
            None,
        )
    ]


def test_a_daemon_may_be_silent_for_15_minutes_and_no_more() -> None:
    assert checked(DaemonState("scheduler", ago(minutes=15))).passed
    assert found_of(DaemonState("scheduler", ago(days=1, hours=3))) == [
        ("daemon scheduler", "has sent no heartbeat for 1 d 3 h", 1620)
    ]


def test_a_daemon_that_never_sent_a_heartbeat_is_named() -> None:
    assert found_of(DaemonState("sensor", None)) == [
        ("daemon sensor", "has never sent a heartbeat", None)
    ]


def test_a_run_may_take_five_minutes_longer_than_its_limit_and_no_more() -> None:
    limit = timedelta(hours=1)
    assert checked(ActiveRun("0123456789abcdef", ago(minutes=65), limit)).passed
    assert found_of(ActiveRun("0123456789abcdef", ago(minutes=90), limit)) == [
        ("run 01234567", "has been running for 1 h 30 min; its limit is 1 h 0 min", 30)
    ]


def test_daemons_come_first_and_all_are_named_with_what_to_do() -> None:
    found = checked(
        schedule(on=False),
        schedule("intraday_refresh", due_since=ago(minutes=40)),
        ActiveRun("0123456789abcdef", ago(hours=3), timedelta(hours=1)),
        DaemonState("scheduler", ago(hours=1)),
    )
    assert found.severity is Severity.ERROR
    assert found.numbers == {"schedules_and_sensors": 2, "problems": 4}
    assert found.description.startswith(
        "Not working: daemon scheduler, schedule daily_kpi_sync, schedule intraday_refresh, "
        "run 01234567. "
    )
    assert "`kpi up`" in found.description


@pytest.mark.parametrize("name", ["daily_kpi_sync", "intraday_refresh"])
def test_only_their_own_schedules_stop_the_syncs(name: str) -> None:
    assert stops_syncs(checked(schedule(name, on=False)).problems)
    assert stops_syncs(checked(schedule(name, due_since=ago(minutes=40))).problems)
    assert not stops_syncs(checked(schedule(name)).problems)
    others = checked(schedule("clean_up_runs", on=False), DaemonState("sensor", None))
    assert not stops_syncs(others.problems)
