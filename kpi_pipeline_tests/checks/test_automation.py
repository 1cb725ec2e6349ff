"""The check `automation_alive`: what is off, late, silent, or takes too long."""

from datetime import datetime, timedelta

import pytest

from kpi_pipeline.checks.automation import (
    Automation,
    Daemon,
    Ticking,
    UnderWay,
    automation_alive,
    halts_syncs,
)
from kpi_pipeline.checks.outcome import Outcome, Severity
from kpi_pipeline_tests.checks.support import TODAY, local

NOW = local(TODAY, 15)


def ago(**passed: float) -> datetime:
    return NOW - timedelta(**passed)


def schedule(
    name: str = "daily_kpi_sync", *, on: bool | None = True, due_since: datetime | None = None
) -> Ticking:
    return Ticking(name, "schedule", on, due_since)


def checked(*parts: Ticking | Daemon | UnderWay) -> Outcome:
    return automation_alive(
        Automation(
            [it for it in parts if isinstance(it, Ticking)],
            [it for it in parts if isinstance(it, Daemon)],
            [it for it in parts if isinstance(it, UnderWay)],
        ),
        NOW,
    )


def found_of(*parts: Ticking | Daemon | UnderWay) -> list[tuple[object, object, object]]:
    found = checked(*parts)
    return [(it["what"], it["problem"], it["late_minutes"]) for it in found.offenders]


def test_where_all_ticks_and_lives_it_passes_and_says_how_many() -> None:
    found = checked(
        schedule(),
        Ticking("webhook_event_sensor", "sensor", True, None),
        Daemon("scheduler", ago(minutes=1)),
        UnderWay("0123456789abcdef", ago(minutes=20), timedelta(hours=1)),
    )
    assert found.passed
    assert found.description == (
        "All 2 schedules and sensors tick, the daemon lives, and no run takes longer than it may."
    )
    assert found.numbers == {"ticking": 2, "not_alive": 0}


def test_a_schedule_that_is_off_is_an_error_however_late_it_is() -> None:
    off = schedule(on=False, due_since=ago(hours=9))
    assert checked(off).severity is Severity.ERROR
    assert found_of(off) == [("schedule daily_kpi_sync", "is switched off", None)]


@pytest.mark.parametrize("on", [True, None])
def test_a_tick_that_did_not_come_is_late_with_its_minutes(on: bool | None) -> None:
    late = schedule(on=on, due_since=ago(hours=2, minutes=7))
    assert found_of(late) == [("schedule daily_kpi_sync", "is late for 2 h 7 min", 127)]


def test_a_tick_may_be_five_minutes_late_and_no_more() -> None:
    assert checked(schedule(due_since=ago(minutes=5))).passed
    assert found_of(schedule(due_since=ago(minutes=5, seconds=1))) == [
        ("schedule daily_kpi_sync", "is late for 5 min", 5)
    ]


def test_a_sensor_that_the_daemon_never_saw_has_never_ticked() -> None:
    sensor = Ticking("webhook_event_sensor", "sensor", None, None)
    assert found_of(sensor) == [
        (
            "sensor webhook_event_sensor",
            "has never ticked: is Dagster's daemon running?",
            None,
        )
    ]


def test_a_daemon_may_be_silent_for_15_minutes_and_no_more() -> None:
    assert checked(Daemon("scheduler", ago(minutes=15))).passed
    assert found_of(Daemon("scheduler", ago(days=1, hours=3))) == [
        ("daemon scheduler", "is silent for 1 d 3 h", 1620)
    ]


def test_a_daemon_of_which_nothing_was_ever_heard_is_named() -> None:
    assert found_of(Daemon("sensor", None)) == [("daemon sensor", "was never heard of", None)]


def test_a_run_may_take_five_minutes_longer_than_its_limit_and_no_more() -> None:
    limit = timedelta(hours=1)
    assert checked(UnderWay("0123456789abcdef", ago(minutes=65), limit)).passed
    assert found_of(UnderWay("0123456789abcdef", ago(minutes=90), limit)) == [
        ("run 01234567", "has gone on for 1 h 30 min; its limit is 1 h 0 min", 30)
    ]


def test_daemons_come_first_and_all_are_named_with_what_to_do() -> None:
    found = checked(
        schedule(on=False),
        schedule("hourly_refresh", due_since=ago(minutes=40)),
        UnderWay("0123456789abcdef", ago(hours=3), timedelta(hours=1)),
        Daemon("scheduler", ago(hours=1)),
    )
    assert found.severity is Severity.ERROR
    assert found.numbers == {"ticking": 2, "not_alive": 4}
    assert found.description.startswith(
        "Not at work: daemon scheduler, schedule daily_kpi_sync, schedule hourly_refresh, "
        "run 01234567. "
    )
    assert "`kpi up`" in found.description


@pytest.mark.parametrize("name", ["daily_kpi_sync", "hourly_refresh"])
def test_syncs_are_halted_by_a_schedule_of_theirs_and_by_nothing_else(name: str) -> None:
    assert halts_syncs(checked(schedule(name, on=False)).offenders)
    assert halts_syncs(checked(schedule(name, due_since=ago(minutes=40))).offenders)
    assert not halts_syncs(checked(schedule(name)).offenders)
    others = checked(schedule("clean_up_runs", on=False), Daemon("sensor", None))
    assert not halts_syncs(others.offenders)
