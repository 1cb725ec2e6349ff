"""What `kpi status` makes of what it reads: which problems there are, and how bad each is."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from kpi_pipeline.checks.alerting import AlertingKind, AlertingProblem
from kpi_pipeline.checks.automation import AutomationState, DaemonState, TickState
from kpi_pipeline.checks.freshness import FreshnessStatus
from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.db.check_results import StoredOutcome
from kpi_pipeline.db.sync_log import SyncFailure
from kpi_pipeline.orchestration.runtime.claim import Claim
from kpi_pipeline.parts import Parts, PartState, PartStatus
from kpi_pipeline.services.status import (
    Area,
    DagsterStatus,
    Facts,
    Level,
    StatusProblem,
    is_running,
    judge,
    worst,
)

NOW = datetime(2026, 3, 18, 20, 0, tzinfo=UTC)
A_SECOND = timedelta(seconds=1)
ON_TIME = TickState("alert_sensor", "sensor", True, NOW + timedelta(minutes=5))


def claim(silent: float = 1, **changed: Any) -> Claim:
    """The claim of a daemon, renewed so many seconds ago."""
    renewed = NOW.timestamp() - silent
    return Claim(
        "made-up", "kpi up", "here", 7, **{"since": renewed - 600, **changed}, renewed_at=renewed
    )


def automation(*ticks: TickState, heard: timedelta | None = 30 * A_SECOND) -> AutomationState:
    at = None if heard is None else NOW - heard
    return AutomationState(ticks or (ON_TIME,), [DaemonState("sensor", at)], ())


def dagster(**changed: Any) -> DagsterStatus:
    return DagsterStatus(**{"automation": automation(), "claim": claim(), **changed})


def judged(**facts: Any) -> list[StatusProblem]:
    return judge(Facts(NOW, **{"dagster": dagster(), **facts}))


def check(severity: str, since: datetime | None = NOW) -> StoredOutcome:
    text = "Two clients contradict themselves."
    return StoredOutcome("plausible", "client_metrics", severity, text, [], 0, ["a"], NOW, since)


def parts(status: PartStatus, *, running: bool = True) -> Parts:
    created = psutil.Process().create_time() if running else 1.0
    state = PartState("gateway", "The gateway", status, NOW, reason="it was killed")
    return Parts("kpi up", os.getpid(), created, [state])


def test_without_a_problem_all_is_well_and_the_exit_codes_are_0_1_and_2() -> None:
    assert judged() == []
    assert worst([]) is Level.OK
    assert [it.exit_code for it in Level] == [0, 1, 2]


@pytest.mark.parametrize(
    ("facts", "level", "area"),
    [
        ({"checks": [check("WARN")]}, Level.WARNING, Area.CHECK),
        ({"checks": [check("ERROR")]}, Level.ERROR, Area.CHECK),
        ({"freshness": [FreshnessStatus("a", NOW, Severity.WARN, ["old"])]}, Level.WARNING,
         Area.CLIENT),
        ({"freshness": [FreshnessStatus("a", NOW, Severity.ERROR, ["old"])]}, Level.ERROR,
         Area.CLIENT),
        ({"failing_syncs": [SyncFailure("a", "run", "a: 401", NOW, NOW)]}, Level.ERROR, Area.SYNC),
        ({"alerting": [AlertingProblem(AlertingKind.NOT_ACCEPTED, "It refuses.", NOW, "slack")]},
         Level.ERROR, Area.ALERTS),
        ({"parts": parts(PartStatus.PAUSING)}, Level.WARNING, Area.PART),
        ({"parts": parts(PartStatus.GIVEN_UP)}, Level.ERROR, Area.PART),
        ({"dagster": dagster(missing_rows="The grid lacks 3 rows.")}, Level.WARNING, Area.GRID),
        ({"dagster": DagsterStatus(problem="It is unreachable.")}, Level.ERROR, Area.DATABASE),
        ({"dagster": dagster(automation=automation(TickState("alert_sensor", "sensor", False, None)
         ))}, Level.ERROR, Area.AUTOMATION),
    ],
)  # fmt: skip
def test_each_kind_of_problem_has_its_level(
    facts: dict[str, Any], level: Level, area: Area
) -> None:
    (problem,) = judged(**facts)
    assert (problem.level, problem.area) == (level, area)


@pytest.mark.parametrize(
    "facts",
    [
        {"checks": [check("ERROR", since=None)]},
        {"freshness": [FreshnessStatus("a", NOW, None, [])]},
        {"parts": parts(PartStatus.RUNNING)},
        {"parts": parts(PartStatus.GIVEN_UP, running=False)},
        {"dagster": dagster(claim=None)},
    ],
    ids=["check passes", "client is fresh", "part runs", "history of an old start", "no claim"],
)
def test_what_is_well_is_no_problem(facts: dict[str, Any]) -> None:
    assert judged(**facts) == []


def test_errors_come_first_and_an_error_names_its_client_once() -> None:
    found = judged(
        checks=[check("WARN")], failing_syncs=[SyncFailure("acme", "run", "acme: 401", NOW, NOW)]
    )
    assert [it.level for it in found] == [Level.ERROR, Level.WARNING]
    assert found[0].text == "acme: 401"
    assert worst(found) is Level.ERROR


def test_a_daemon_that_is_killed_is_an_error_within_twelve_seconds() -> None:
    assert is_running(dagster(claim=claim(11)), NOW)
    (problem,) = judged(dagster=dagster(claim=claim(13)))
    assert (problem.level, problem.area) == (Level.ERROR, Area.DAEMON)
    assert problem.text.startswith(
        "Dagster's daemon (`kpi up`, process 7 on here) has been silent for 13 s:"
    )
    assert problem.since == NOW - 13 * A_SECOND


def test_a_daemon_that_was_stopped_is_an_error_at_once_and_its_heartbeats_are_not_missed() -> None:
    stopped = dagster(claim=claim(3, released=True), automation=automation(heard=None))
    (problem,) = judged(dagster=stopped)
    assert problem.text.startswith("Dagster was stopped 3 s ago:")


@pytest.mark.parametrize("of_it", [None, claim()], ids=["no claim", "its command goes on"])
def test_a_daemon_is_judged_by_its_heartbeats_as_well(of_it: Claim | None) -> None:
    assert is_running(dagster(claim=of_it, automation=automation(heard=80 * A_SECOND)), NOW)
    (problem,) = judged(dagster=dagster(claim=of_it, automation=automation(heard=100 * A_SECOND)))
    assert problem.text.startswith("Dagster's daemon has sent no heartbeat for 1 min:")
    assert problem.since == NOW - 100 * A_SECOND


def test_a_daemon_that_is_starting_has_two_minutes_for_its_first_heartbeat() -> None:
    heard = automation(heard=None)
    began = NOW.timestamp() - 119
    assert is_running(dagster(claim=claim(since=began), automation=heard), NOW)
    assert not is_running(dagster(claim=claim(since=began - 2), automation=heard), NOW)


def test_where_dagster_never_ran_one_line_says_so_and_nothing_that_follows_from_it() -> None:
    new = DagsterStatus(
        automation(TickState("alert_sensor", "sensor", None, None), heard=None),
        missing_rows="The grid lacks 3 rows.",
    )
    late = AlertingProblem(AlertingKind.NOT_EVALUATED, "Alerts are not evaluated.", None)
    (problem,) = judged(dagster=new, alerting=[late])
    assert problem.text == "Dagster has never run on this database: `kpi up` starts it."
