"""When checks are done, and that a run which fills partitions makes no calls for them."""

from datetime import UTC, datetime, timedelta
from functools import partial

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.test_utils import create_run_for_test
from sqlalchemy import text

from kpi_pipeline.checks.outcome import Check
from kpi_pipeline.db.check_results import read_outcomes
from kpi_pipeline.definitions import build_definitions
from kpi_pipeline.orchestration import nightly_sync
from kpi_pipeline.orchestration.asset_checks.specs import (
    ASSET_OF,
    LIGHT_CHECKS,
    TOTALS_CHECK,
    check_key,
)
from kpi_pipeline.orchestration.assets import client_kpis
from kpi_pipeline.orchestration.automation.check_runs import after_sync
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.orchestration.runs import AFTER_SYNC_OF, RUN_KEY, SCHEDULE
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.orchestration.installation import Installation
from kpi_pipeline_tests.orchestration.ticks import evaluate_schedule, leave_tick

NOW = datetime(2026, 3, 18, 20, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def checks_of(result: dg.SensorResult) -> list[dg.AssetCheckKey]:
    return [key for it in result.run_requests or [] for key in it.asset_check_keys or []]


def evaluated(
    name: str, instance: DagsterInstance, tick: datetime
) -> tuple[list[dg.RunRequest], str | None]:
    return evaluate_schedule(build_definitions(load_settings()), name, instance, tick)


def checked(
    installation: Installation, *keys: dg.AssetCheckKey, **tags: str
) -> dg.ExecuteInProcessResult:
    """A run of these checks."""
    job = installation.definitions.resolve_implicit_global_asset_job_def()
    subset = job.get_subset(asset_check_selection=set(keys))
    named = {name.replace("__", "/"): value for name, value in tags.items()}
    return subset.execute_in_process(instance=installation.instance, tags=named)


def stats_calls(installation: Installation) -> int:
    calls = installation.agency.bison.http.get("/sandbox/calls").json()["calls"]
    return sum(it["path"].endswith("/stats") for it in calls)


def outcome_of(result: dg.ExecuteInProcessResult, check: Check) -> dg.AssetCheckEvaluation:
    (evaluation,) = [
        it for it in result.get_asset_check_evaluations() if it.check_name == check.value
    ]
    return evaluation


def test_one_schedule_requests_the_light_checks_and_one_the_totals(
    instance: DagsterInstance,
) -> None:
    tick = datetime.now(UTC) + MINUTE
    (light,), _ = evaluated("data_checks", instance, tick)
    (totals,), _ = evaluated("daily_totals_check", instance, tick)
    assert (light.asset_selection, totals.asset_selection) == ([], [])
    assert set(light.asset_check_keys or ()) == set(LIGHT_CHECKS)
    assert list(totals.asset_check_keys or ()) == [TOTALS_CHECK]
    others = {*Check} - {Check(key.name) for key in (*LIGHT_CHECKS, TOTALS_CHECK)}
    assert others == {Check.REGISTRY_MATCHES_BISON}
    for request in (light, totals):
        assert datetime.fromisoformat(request.tags[AFTER_SYNC_OF]) == tick


@pytest.mark.parametrize(
    ("name", "age"), [("data_checks", 16 * MINUTE), ("daily_totals_check", timedelta(hours=25))]
)
def test_of_the_ticks_that_were_missed_only_the_last_one_checks(
    name: str, age: timedelta, instance: DagsterInstance
) -> None:
    requests, reason = evaluated(name, instance, datetime.now(UTC) - age)
    assert requests == []
    assert reason is not None
    assert reason.startswith("Made up late: the tick of ")


def test_after_a_sync_one_run_of_checks_is_requested_and_no_second_one(
    instance: DagsterInstance,
) -> None:
    assert checks_of(after_sync(instance, None, None, NOW)) == []
    first = after_sync(instance, None, NOW - MINUTE, NOW)
    assert set(checks_of(first)) == set(LIGHT_CHECKS)
    (request,) = first.run_requests or []
    assert request.tags[AFTER_SYNC_OF] == NOW.isoformat(), "it may be a sync of long ago"
    assert checks_of(after_sync(instance, first.cursor, NOW - MINUTE, NOW + 5 * MINUTE)) == []

    next_sync = after_sync(instance, first.cursor, NOW, NOW + MINUTE)
    assert checks_of(next_sync) == [], "a round was requested a minute ago"
    assert set(checks_of(after_sync(instance, next_sync.cursor, NOW, NOW + 2 * MINUTE)))


def test_checks_wait_for_syncs_in_progress_but_not_forever(
    instance: DagsterInstance,
) -> None:
    run = create_run_for_test(
        instance,
        asset_selection=frozenset({dg.AssetKey("client_metrics")}),
        status=DagsterRunStatus.STARTED,
    )
    try:
        # The first sync of an installation is waited for, too.
        waits = after_sync(instance, None, NOW - MINUTE, NOW)
        assert checks_of(waits) == []
        assert checks_of(after_sync(instance, waits.cursor, NOW, NOW + 9 * MINUTE)) == []
        late = after_sync(instance, waits.cursor, NOW + 10 * MINUTE, NOW + 10 * MINUTE)
        assert set(checks_of(late)) == set(LIGHT_CHECKS)

        later = after_sync(instance, late.cursor, NOW + 11 * MINUTE, NOW + 13 * MINUTE)
        assert checks_of(later) == [], "the next one waits again"
    finally:
        instance.report_run_canceled(run)
    assert checks_of(after_sync(instance, later.cursor, NOW + 11 * MINUTE, NOW + 14 * MINUTE))


def test_without_an_intraday_refresh_there_is_no_such_schedule_and_a_day_counts_as_fresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KPI_REFRESH_MINUTES", "off")
    daily = load_settings()
    names = {it.name for it in build_definitions(daily).schedules or ()}
    assert "daily_kpi_sync" in names
    assert "intraday_refresh" not in names
    assert daily.stale_after == timedelta(hours=26)
    spec = (
        build_definitions(daily)
        .resolve_assets_def("client_metrics")
        .get_asset_spec(dg.AssetKey("client_metrics"))
    )
    assert spec.freshness_policy == dg.FreshnessPolicy.time_window(
        warn_window=daily.stale_after, fail_window=2 * daily.stale_after
    )


@pytest.mark.runs
@pytest.mark.long
def test_totals_are_read_by_hand_and_never_in_a_run_that_fills_partitions(
    installation: Installation,
) -> None:
    dates = installation.days_ago(1, 0)
    filled = installation.run(block_tags(installation.workspaces, dates))
    assert filled.success
    done = {it.check_name for it in filled.get_asset_check_evaluations()}
    grid_checks = {it.value for it, key in ASSET_OF.items() if key.to_user_string() in _GRID}
    assert done == grid_checks - {TOTALS_CHECK.name}, "totals that were never requested"
    assert stats_calls(installation) == 0

    totals = outcome_of(checked(installation, TOTALS_CHECK), Check.TOTALS_MATCH_BISON)
    assert totals.passed, totals.description
    assert stats_calls(installation) == 26

    again = installation.run(block_tags(installation.workspaces, dates))
    outcome = outcome_of(again, Check.TOTALS_MATCH_BISON)
    assert outcome.passed
    assert outcome.description is not None
    assert "(As of " in outcome.description
    assert stats_calls(installation) == 26


@pytest.mark.runs
@pytest.mark.long
def test_made_up_totals_are_compared_once_the_made_up_sync_has_written_its_rows(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance, tick = installation.instance, installation.agency.app.now()
    due = nightly_sync.due_before(tick, installation.agency.app.settings)
    leave_tick(instance, "daily_kpi_sync", at=due)
    night = create_run_for_test(
        instance,
        asset_selection=frozenset({dg.AssetKey("client_metrics")}),
        tags={SCHEDULE: "daily_kpi_sync", RUN_KEY: f"{due.isoformat()} all"},
        status=DagsterRunStatus.STARTED,
    )
    polls: list[int] = []

    def sync(_: float) -> None:
        polls.append(stats_calls(installation))
        dates = installation.days_ago(1, 0)
        assert installation.run(block_tags(installation.workspaces, dates), checks=False).success
        instance.report_dagster_event(
            dg.DagsterEvent("PIPELINE_SUCCESS", night.job_name), night.run_id
        )

    made_up = {AFTER_SYNC_OF.replace("/", "__"): tick.isoformat()}
    with monkeypatch.context() as patch:
        wait = partial(nightly_sync.wait_for_nightly_sync, sleep=sync)
        patch.setattr(nightly_sync, "wait_for_nightly_sync", wait)
        found = outcome_of(checked(installation, TOTALS_CHECK, **made_up), Check.TOTALS_MATCH_BISON)
    assert polls == [0], "nothing was asked for before the rows were there"
    assert found.passed, found.description

    monkeypatch.setattr(client_kpis, "LONGEST_WAIT", timedelta(0))
    create_run_for_test(
        instance,
        asset_selection=frozenset({dg.AssetKey("client_metrics")}),
        tags=night.tags,
        status=DagsterRunStatus.STARTED,
    )
    late = outcome_of(checked(installation, TOTALS_CHECK, **made_up), Check.TOTALS_MATCH_BISON)
    assert late.description is not None
    assert late.description.startswith("The nightly sync of ")
    assert " is in progress: numbers may still change. " in late.description


@pytest.mark.runs
@pytest.mark.long
def test_the_runs_of_a_backfill_report_the_last_results_and_do_no_check(
    installation: Installation,
) -> None:
    dates = installation.days_ago(1, 0)
    part = {**block_tags(installation.workspaces, dates), "dagster/backfill": "a-backfill"}
    first = installation.run(part)
    assert first.success
    assert first.get_asset_check_evaluations() == [], "nothing is to be checked"

    checked(installation, check_key(Check.COMPLETE))
    lost = "DELETE FROM client_metrics WHERE metric_date = :day"
    with installation.agency.app.engine.begin() as connection:
        connection.execute(text(lost), {"day": dates[0]})
    outcome = outcome_of(installation.run(part), Check.COMPLETE)
    assert outcome.passed
    assert outcome.description is not None
    assert "(As of " in outcome.description


@pytest.mark.runs
def test_a_run_in_which_a_client_fails_still_does_its_checks(
    installation: Installation,
) -> None:
    bad = installation.agency.keyed[0]
    installation.agency.revoke(bad)
    failed = installation.run(block_tags(installation.workspaces, installation.days_ago(1, 0)))
    assert not failed.success
    fresh = outcome_of(failed, Check.FRESHNESS)
    assert not fresh.passed
    assert fresh.metadata["fresh"].value == 25
    assert bad in str(fresh.metadata["problems"].value)


@pytest.mark.runs
def test_the_results_of_checks_are_in_the_database(
    installation: Installation,
) -> None:
    checked(installation, *LIGHT_CHECKS)
    with installation.agency.app.engine.connect() as connection:
        stored = {it.name: it for it in read_outcomes(connection)}
    assert stored.keys() == {key.name for key in LIGHT_CHECKS}
    fresh = stored["freshness"]
    assert (fresh.severity, fresh.asset) == ("WARN", "client_metrics")
    assert fresh.description.startswith("0 of 26 clients fresh")
    assert len(fresh.offenders) == 26
    assert fresh.since == fresh.checked_at
    assert check_key(Check.FRESHNESS) in LIGHT_CHECKS


_GRID = {"raw_bison_stats", "kpi_projections", "client_metrics"}
