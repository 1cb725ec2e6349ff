"""Alerts about syncs and the numbers that they bring: one outage is one message."""

from datetime import UTC, datetime

import dagster as dg
import pytest

from kpi_pipeline.checks.outcome import Check
from kpi_pipeline.orchestration.asset_checks.specs import TOTALS_CHECK
from kpi_pipeline_tests.alerts.support import START
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver
from kpi_pipeline_tests.orchestration.installation import Installation
from kpi_pipeline_tests.orchestration.test_alerts import Desk

pytestmark = pytest.mark.runs


@pytest.fixture
def desk(installation: Installation, receiver: Receiver) -> Desk:
    return Desk(installation, receiver)


@pytest.mark.long
def test_a_night_without_email_bison_is_one_message_and_leaves_no_problem_behind(
    desk: Desk,
) -> None:
    installation = desk.installation
    bison = installation.agency.bison
    desk.evaluate(0)
    bison.fault("status", status=503, times=None)
    desk.refresh_registry()
    desk.check_totals()
    assert not desk.sync()
    assert desk.failing_checks() == {Check.REGISTRY_MATCHES_BISON, Check.TOTALS_MATCH_BISON}

    desk.evaluate(*range(1, 600, 15))
    (message,) = desk.receiver.received
    assert message.body["title"] == "ERROR: the sync fails for 26 clients"

    registry, totals = desk.retries()
    assert registry.asset_selection == [dg.AssetKey("client_registry")]
    assert (totals.asset_selection, totals.asset_check_keys) == ([], [TOTALS_CHECK])
    bison.http.delete("/sandbox/faults")
    assert desk.sync()
    desk.evaluate(601)
    assert desk.titles()[1:] == ["RESOLVED: the sync works again for 26 clients"]
    desk.evaluate(610)
    assert desk.refresh_registry()
    desk.check_totals()
    desk.evaluate(612, 700, 800)
    assert len(desk.titles()) == 2
    assert desk.retries() == []


def test_a_rejected_key_is_alerted_beside_the_failing_sync_and_not_retried(
    desk: Desk,
) -> None:
    installation = desk.installation
    rejected = installation.agency.keyed[0]
    installation.agency.revoke(rejected)
    desk.refresh_registry()
    assert not desk.sync()
    assert desk.retries() == []
    desk.evaluate(0, 6, 7)
    shown = "\n".join(desk.titles())
    assert "the registry differs from Email Bison" in shown
    assert f"the sync fails for {rejected}" in shown


def test_totals_that_stay_unanswered_are_alerted_after_a_retry(
    desk: Desk,
) -> None:
    installation = desk.installation
    desk.evaluate(0)
    installation.agency.bison.fault("status", status=503, path="stats", times=None)
    desk.check_totals()
    desk.evaluate(1, 60)
    assert desk.titles() == []
    desk.evaluate(80)
    (title,) = desk.titles()
    assert title.startswith("WARN: Email Bison leaves totals_match_bison unanswered for ")


def test_a_sync_schedule_that_is_off_is_alerted_without_the_old_numbers(desk: Desk) -> None:
    clients = ("acme", "birch")
    off = [{"what": "schedule intraday_refresh", "problem": "is switched off"}]
    desk.office.passed = datetime.now(UTC) - START
    desk.office.check("automation_alive", offenders=off)
    desk.office.check("freshness", *clients)
    desk.evaluate(0, 60, 120)
    assert desk.titles() == ["ERROR: automation does not work"]

    # Switched on again, it starts within the hour, and the checks follow.
    desk.office.check("automation_alive", passed=True)
    desk.evaluate(130, 190)
    desk.office.check("freshness", passed=True)
    desk.evaluate(200)
    assert desk.titles()[1:] == ["RESOLVED: automation works again"]


def test_old_numbers_are_alerted_when_they_stay_old_after_syncs_resume(desk: Desk) -> None:
    late = [{"what": "schedule daily_kpi_sync", "problem": "is late for 2 h"}]
    desk.office.passed = datetime.now(UTC) - START
    desk.office.check("automation_alive", offenders=late)
    desk.office.check("freshness", "acme")
    desk.evaluate(0)
    desk.office.check("automation_alive", passed=True)
    desk.evaluate(1, 60, 80)
    assert desk.titles() == [
        "ERROR: automation does not work",
        "RESOLVED: automation works again",
        "ERROR: numbers are stale for acme",
    ]
