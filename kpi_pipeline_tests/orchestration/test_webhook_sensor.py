"""Stored events that are not applied are requested in runs over the rows that they change."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from kpi_pipeline.db.retry import retry_on_disconnect
from kpi_pipeline.orchestration.partitions import WORKSPACE
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.orchestration.installation import Installation, cells
from kpi_pipeline_tests.orchestration.stored_events import (
    asked,
    carry_out,
    lead,
    leads_this_month,
    look,
    rows_of,
    sql,
    statuses,
    store,
    store_leads,
)

pytestmark = pytest.mark.runs
EVENT_ASSETS = {"kpi_projections", "client_metrics"}


@pytest.fixture
def stocked(installation: Installation) -> Installation:
    """Six contiguous clients whose last four days are filled."""
    dates = installation.days_ago(3, 2, 1, 0)
    installation.agency.synced(dates, installation.workspaces[:6])
    installation.agency.forget_calls()
    return installation


def test_a_run_over_just_the_changed_rows_brings_stored_events_into_the_numbers(
    stocked: Installation,
) -> None:
    first, second, _, _, _, last = stocked.workspaces[:6]
    today, yesterday = stocked.today, stocked.today - timedelta(days=1)
    before = {key: leads_this_month(stocked, key) for key in (first, second, last)}
    store_leads(stocked, first, today)
    store_leads(stocked, second, today, 2)
    store_leads(stocked, last, yesterday)

    result = look(stocked)

    assert asked(stocked, result) == [
        ([last], yesterday, today),
        ([first, second], today, today),
    ]
    for request in result.run_requests or ():
        assert {key.to_user_string() for key in request.asset_selection or ()} == EVENT_ASSETS
    assert all(run.success for run in carry_out(stocked, result.run_requests or ()))
    assert {key: leads_this_month(stocked, key) - before[key] for key in before} == {
        first: 1,
        second: 2,
        last: 1 if yesterday.month == today.month else 0,
    }
    assert set(statuses(stocked).values()) == {"applied"}
    filled = cells([first, second], [today]) | cells([last], [yesterday, today])
    assert {asset: stocked.partitions(asset) for asset in EVENT_ASSETS} == dict.fromkeys(
        EVENT_ASSETS, (filled, set())
    )
    assert stocked.agency.calls() == {}, "nothing is asked of Email Bison"
    assert asked(stocked, look(stocked)) == []


def test_events_are_not_requested_twice_while_a_run_is_active_and_again_after_it_failed(
    stocked: Installation,
) -> None:
    first, second = stocked.workspaces[:2]
    store_leads(stocked, first, stocked.today)
    (request,) = look(stocked).run_requests or ()
    assert [it.run_key for it in look(stocked).run_requests or ()] == [request.run_key], (
        "a look that was cut short and is repeated asks for the very same"
    )
    run = create_run_for_test(
        stocked.instance, status=DagsterRunStatus.STARTED, tags=dict(request.tags)
    )
    store_leads(stocked, second, stocked.today)

    assert asked(stocked, look(stocked)) == [([second], stocked.today, stocked.today)]

    stocked.instance.report_run_failed(run)
    sql(
        stocked,
        "UPDATE webhook_events SET tries = 1, next_try_at = now() + interval '15 seconds' "
        "WHERE workspace = :key",
        key=first,
    )
    assert asked(stocked, look(stocked)) == [([second], stocked.today, stocked.today)]
    later = datetime.now(UTC) + timedelta(seconds=20)
    again = look(stocked, replace(stocked.agency.app, now=lambda: later))
    assert asked(stocked, again) == [([first, second], stocked.today, stocked.today)]
    store_leads(stocked, first, stocked.today)
    keys = {it.run_key for it in (*(look(stocked).run_requests or ()), *(again.run_requests or ()))}
    assert request.run_key not in keys


def test_events_that_a_cancelled_run_left_are_requested_again_after_five_minutes(
    stocked: Installation,
) -> None:
    store_leads(stocked, stocked.workspaces[0], stocked.today)
    later = datetime.now(UTC) + timedelta(minutes=5)

    (now,) = look(stocked).run_requests or ()
    (then,) = look(stocked, replace(stocked.agency.app, now=lambda: later)).run_requests or ()

    assert then.run_key != now.run_key, "Dagster starts no second run of one key"
    assert then.tags == now.tags


def test_a_gap_in_the_facts_splits_the_dates_and_the_event_is_applied(
    stocked: Installation,
) -> None:
    workspace = stocked.workspaces[0]
    three, two, one, zero = stocked.days_ago(3, 2, 1, 0)
    sql(
        stocked,
        "DELETE FROM raw_bison_stats WHERE workspace = :key AND date = :day",
        key=workspace,
        day=two,
    )
    store_leads(stocked, workspace, three)

    result = look(stocked)

    assert asked(stocked, result) == [([workspace], three, three), ([workspace], one, zero)]
    assert all(run.success for run in carry_out(stocked, result.run_requests or ()))
    assert set(statuses(stocked).values()) == {"applied"}


def test_rows_before_the_first_date_of_the_grid_are_recomputed_too(
    stocked: Installation,
) -> None:
    workspace, other = stocked.workspaces[:2]
    three, two, zero = stocked.days_ago(3, 2, 0)
    app = stocked.agency.app
    narrow = replace(app, settings=app.settings.model_copy(update={"first_date": two}))
    before = stocked.agency.rows()[workspace, three]["positive_replies_today"]
    store_leads(stocked, workspace, three)
    # Of a day whose facts nobody ever fetched: it shows in no row.
    store_leads(stocked, other, three - timedelta(days=400))

    result = look(stocked, narrow)

    assert asked(stocked, result) == [([workspace], two, zero)]
    carry_out(stocked, result.run_requests or ())
    assert set(statuses(stocked).values()) == {"applied"}
    assert stocked.agency.rows()[workspace, three]["positive_replies_today"] == int(str(before)) + 1


def test_a_client_without_a_partition_is_named_and_stops_no_other(stocked: Installation) -> None:
    first, second = stocked.workspaces[:2]
    store_leads(stocked, first, stocked.today)
    stocked.instance.delete_dynamic_partition(WORKSPACE, first)

    alone = look(stocked)
    store_leads(stocked, second, stocked.today)
    both = look(stocked)

    assert alone.skip_reason is not None
    assert f"Events of {first} are pending" in str(alone.skip_reason.skip_message)
    assert asked(stocked, alone) == []
    assert asked(stocked, both) == [([second], stocked.today, stocked.today)]


def test_events_of_a_client_that_is_imported_later_are_requested_then(
    stocked: Installation,
) -> None:
    workspace = stocked.workspaces[0]
    sql(stocked, "UPDATE clients SET active = false WHERE workspace = :key", key=workspace)
    store(stocked, lead(stocked.agency.ids[workspace], stocked.today))
    assert set(statuses(stocked).values()) == {"unmatched"}
    assert asked(stocked, look(stocked)) == []

    sql(stocked, "UPDATE clients SET active = true WHERE workspace = :key", key=workspace)

    assert asked(stocked, look(stocked)) == [([workspace], stocked.today, stocked.today)]


def test_events_that_the_gateway_applied_are_not_requested(stocked: Installation) -> None:
    workspace = stocked.workspaces[0]
    before = leads_this_month(stocked, workspace)

    store_leads(stocked, workspace, stocked.today, realtime=True)

    assert asked(stocked, look(stocked)) == []
    assert leads_this_month(stocked, workspace) == before + 1


def test_a_problem_with_the_folder_of_files_is_reported_and_stops_nothing_else(
    stocked: Installation, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "not-a-folder"
    in_the_way.write_text("a file")
    app = stocked.agency.app
    settings = app.settings.model_copy(update={"event_drop_dir": in_the_way})
    troubled = replace(app, settings=settings)

    alone = look(stocked, troubled)
    store_leads(stocked, stocked.workspaces[0], stocked.today)

    assert alone.skip_reason is not None
    assert "The files of KPI_EVENT_DROP_DIR could not be ingested" in str(
        alone.skip_reason.skip_message
    )
    assert len(asked(stocked, look(stocked, troubled))) == 1


def test_while_the_database_is_unreachable_a_tick_fails_with_a_sentence(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_DATABASE_URL", "postgresql://kpi@127.0.0.1:1/kpi")
    monkeypatch.setattr(
        "kpi_pipeline.app.retry_on_disconnect", lambda work: retry_on_disconnect(work, seconds=0)
    )
    sensor = installation.definitions.resolve_sensor_def("webhook_event_sensor")
    resources = installation.definitions.resources or {}

    with (
        dg.build_sensor_context(instance=installation.instance, resources=resources) as context,
        pytest.raises(dg.Failure, match="database") as failure,
    ):
        sensor(context)

    assert failure.value.__suppress_context__
    assert failure.value.__cause__ is None
    assert load_settings().database_url is not None


def reports(result: dg.SensorResult) -> list[dict[str, object]]:
    """The metadata of each report to the catalogue."""
    return [
        {name: value.value for name, value in event.metadata.items()}
        for event in result.asset_events
    ]


def test_applied_events_are_reported_as_a_materialization_once_a_minute_at_most(
    stocked: Installation,
) -> None:
    first, second = stocked.workspaces[:2]
    app = stocked.agency.app
    start = datetime.now(UTC)

    def at(seconds: int, cursor: str | None) -> dg.SensorResult:
        now = start + timedelta(seconds=seconds)
        return look(stocked, replace(app, now=lambda: now), cursor)

    def apply(workspace: str, number: int, seconds: int) -> None:
        ids = store_leads(stocked, workspace, stocked.today, number, realtime=True)
        sql(
            stocked,
            "UPDATE webhook_events SET applied_at = :at WHERE id = ANY(:ids)",
            at=start + timedelta(seconds=seconds),
            ids=ids,
        )

    apply(first, 2, seconds=1)
    apply(second, 3, seconds=2)
    told = at(20, None)
    apply(first, 1, seconds=30)
    too_soon = at(60, told.cursor)
    again = at(90, too_soon.cursor)
    nothing_new = at(200, again.cursor)

    (report,) = reports(told)
    assert report["applied"] == 5
    assert rows_of(report["applied_by_client"]) == [
        {"client": second, "applied": 3},
        {"client": first, "applied": 2},
    ]
    assert reports(too_soon) == []
    assert [it["applied"] for it in reports(again)] == [1]
    assert reports(nothing_new) == []
