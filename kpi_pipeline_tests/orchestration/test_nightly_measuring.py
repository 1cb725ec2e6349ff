"""The registry's run measures how Email Bison counts, once a day and not while syncs run."""

import pytest

from kpi_pipeline.checks.outcome import Check
from kpi_pipeline.db.findings import read_findings
from kpi_pipeline.domain.measure import Subject
from kpi_pipeline.orchestration.asset_checks.specs import check_key
from kpi_pipeline.orchestration.assets import client_registry
from kpi_pipeline_tests.orchestration.installation import Installation
from kpi_pipeline_tests.orchestration.test_check_runs import checked, outcome_of

pytestmark = pytest.mark.runs
ELSEWHERE = "Asia/Kolkata"


def feed_calls(installation: Installation) -> int:
    calls = installation.agency.calls().values()
    return sum(it["path"] == "/api/events" for made in calls for it in made)


def zones(installation: Installation) -> list[str | None]:
    with installation.agency.app.engine.connect() as connection:
        found = read_findings(connection)
    return [it.value for it in found if it.subject is Subject.DAY_ZONE]


@pytest.fixture
def installation(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Installation:
    monkeypatch.setenv("KPI_EVENT_FEED_MINUTES", "5")
    bison = installation.agency.bison
    bison.variants(day_zone=ELSEWHERE)
    # It measures with the busiest client: here the busiest of those of ordinary size.
    rows = sorted(bison.with_key(), key=lambda it: int(it["monthly_sending_target"]))
    ordinary = [int(row["bison_workspace_id"]) for row in rows[:19]]
    installation.agency.sql(
        "UPDATE clients SET active = false WHERE bison_workspace_id <> ALL(:few)", few=ordinary
    )
    return installation


def test_the_registrys_run_measures_once_a_day_and_the_check_warns(
    installation: Installation,
) -> None:
    assert installation.run(assets=["client_registry"]).success

    assert zones(installation) == [ELSEWHERE]
    calls = feed_calls(installation)
    assert installation.run(assets=["client_registry"]).success
    assert feed_calls(installation) == calls > 0

    outcome = outcome_of(
        checked(installation, check_key(Check.BISON_DAYS_MEASURED)), Check.BISON_DAYS_MEASURED
    )
    assert not outcome.passed
    assert f"set KPI_BISON_TIMEZONE={ELSEWHERE}" in str(outcome.description)


def test_while_syncs_run_it_waits_and_at_last_leaves_it_to_another_night(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_registry, "_LONGEST_WAIT_SECONDS", 0)
    monkeypatch.setattr(client_registry, "is_syncing", lambda _: True)
    result = installation.run(assets=["client_registry"])
    assert result.success
    assert zones(installation) == []
    assert feed_calls(installation) == 0


def test_an_instance_without_a_feed_fails_no_run(installation: Installation) -> None:
    installation.agency.bison.variants(event_feed="missing")
    result = installation.run(assets=["client_registry"])
    assert result.success
    assert result.asset_materializations_for_node("refresh_client_registry")
    assert zones(installation) == []
