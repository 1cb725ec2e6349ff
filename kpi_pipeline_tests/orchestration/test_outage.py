"""One outage of Email Bison, or one schedule that is off, is one message."""

from datetime import UTC, datetime

import dagster as dg
import pytest

from kpi_pipeline.checks.outcome import Check
from kpi_pipeline.db.check_results import read_outcomes
from kpi_pipeline.orchestration.asset_checks.specs import TOTALS_CHECK
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline_tests.alerts.support import START
from kpi_pipeline_tests.orchestration.desk import Desk
from kpi_pipeline_tests.orchestration.installation import Installation
from kpi_pipeline_tests.orchestration.ticks import evaluate_schedule

pytestmark = pytest.mark.runs

REGISTRY = ["client_registry"]


def sync(installation: Installation) -> bool:
    tags = block_tags(installation.workspaces, installation.days_ago(0, 1))
    return installation.run(tags, checks=False).success


def ask_for_totals(installation: Installation) -> None:
    job = installation.definitions.resolve_implicit_global_asset_job_def()
    subset = job.get_subset(asset_check_selection={TOTALS_CHECK})
    assert subset.execute_in_process(instance=installation.instance).success


def asked_again(installation: Installation) -> list[dg.RunRequest]:
    """What the schedule `retry_unanswered_checks` requests."""
    name, now = "retry_unanswered_checks", datetime.now(UTC)
    return evaluate_schedule(installation.definitions, name, installation.instance, now)[0]


def failing(installation: Installation) -> set[str]:
    with installation.agency.app.engine.connect() as connection:
        return {it.name for it in read_outcomes(connection) if it.since is not None}


@pytest.mark.long
def test_a_night_without_email_bison_is_one_message_and_leaves_no_problem_behind(
    desk: Desk,
) -> None:
    installation = desk.installation
    bison = installation.agency.bison
    desk.look(0)
    bison.fault("status", status=503, times=None)
    installation.run(assets=REGISTRY)
    ask_for_totals(installation)
    assert not sync(installation)
    assert failing(installation) == {Check.REGISTRY_MATCHES_BISON, Check.TOTALS_MATCH_BISON}

    for minutes in range(1, 600, 15):
        desk.look(minutes)
    (message,) = desk.receiver.received
    assert message.body["title"] == "ERROR: the sync of 26 clients fails"

    registry, totals = asked_again(installation)
    assert registry.asset_selection == [dg.AssetKey("client_registry")]
    assert (totals.asset_selection, totals.asset_check_keys) == ([], [TOTALS_CHECK])
    bison.http.delete("/sandbox/faults")
    assert sync(installation)
    desk.look(601)
    assert desk.told()[1:] == ["RESOLVED: the sync of 26 clients fails"]
    desk.look(610)
    assert installation.run(assets=REGISTRY).success
    ask_for_totals(installation)
    for minutes in (612, 700, 800):
        desk.look(minutes)
    assert len(desk.told()) == 2
    assert asked_again(installation) == []


def test_a_rejected_key_is_alerted_beside_the_failing_sync_and_not_retried(
    desk: Desk,
) -> None:
    installation = desk.installation
    rejected = installation.agency.keyed[0]
    installation.agency.revoke(rejected)
    installation.run(assets=REGISTRY)
    assert not sync(installation)
    assert asked_again(installation) == []
    for minutes in (0, 6, 7):
        desk.look(minutes)
    told = "\n".join(desk.told())
    assert "registry_matches_bison of client_registry" in told
    assert "the sync of 1 client fails" in told


def test_totals_that_stay_unanswered_are_alerted_after_a_retry(
    desk: Desk,
) -> None:
    installation = desk.installation
    desk.look(0)
    installation.agency.bison.fault("status", status=503, path="stats", times=None)
    ask_for_totals(installation)
    desk.look(1)
    desk.look(60)
    assert desk.told() == []
    desk.look(80)
    assert desk.told() == ["WARN: totals_match_bison of raw_bison_stats"]


def test_a_sync_schedule_that_is_off_is_alerted_without_the_old_numbers(desk: Desk) -> None:
    clients = ("acme", "birch")
    off = [{"what": "schedule hourly_refresh", "problem": "is switched off"}]
    desk.office.passed = datetime.now(UTC) - START
    desk.office.check("automation_alive", offenders=off)
    desk.office.check("freshness", *clients)
    for minutes in (0, 60, 120):
        desk.look(minutes)
    assert desk.told() == ["ERROR: automation_alive of client_metrics"]

    # Switched on again, it starts within the hour, and the checks follow.
    desk.office.check("automation_alive", passed=True)
    for minutes in (130, 190):
        desk.look(minutes)
    desk.office.check("freshness", passed=True)
    desk.look(200)
    assert desk.told()[1:] == ["RESOLVED: automation_alive of client_metrics"]


def test_old_numbers_are_alerted_when_they_stay_old_after_syncs_resume(desk: Desk) -> None:
    late = [{"what": "schedule daily_kpi_sync", "problem": "is late for 2 h"}]
    desk.office.passed = datetime.now(UTC) - START
    desk.office.check("automation_alive", offenders=late)
    desk.office.check("freshness", "acme")
    desk.look(0)
    desk.office.check("automation_alive", passed=True)
    for minutes in (1, 60, 80):
        desk.look(minutes)
    assert desk.told() == [
        "ERROR: automation_alive of client_metrics",
        "RESOLVED: automation_alive of client_metrics",
        "ERROR: freshness of client_metrics",
    ]
