"""Stored events that are not applied are requested in runs over the rows that they change."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from kpi_pipeline.app import AppContext
from kpi_pipeline.orchestration.automation.webhook_events import evaluate_events
from kpi_pipeline.orchestration.partitions import WORKSPACE, block_from_tags
from kpi_pipeline_tests.orchestration.installation import Installation, cells, lead
from kpi_pipeline_tests.services.invented_backfills import launched_run

pytestmark = pytest.mark.runs
EVENT_ASSETS = {"kpi_projections", "client_metrics"}


Request = tuple[list[str], date, date]


def store_leads(
    installation: Installation,
    workspace: str,
    day: date,
    number: int = 1,
    *,
    realtime: bool = False,
) -> list[int]:
    """Store so many leads of a client; their ids."""
    leads = [lead(installation.agency.ids[workspace], day) for _ in range(number)]
    return installation.store(*leads, realtime=realtime)


def evaluate(
    installation: Installation, app: AppContext | None = None, cursor: str | None = None
) -> dg.SensorResult:
    """One evaluation of the sensor; the test sets the clock if it gives an app."""
    with dg.build_sensor_context(instance=installation.instance, cursor=cursor) as context:
        return evaluate_events(context, app or installation.agency.app)


def requested(installation: Installation, result: dg.SensorResult) -> list[Request]:
    """The clients and the first and last date of each requested run."""
    order = installation.instance.get_dynamic_partitions(WORKSPACE)
    blocks = [block_from_tags(request.tags, order) for request in result.run_requests or ()]
    return [(list(it.workspaces), it.dates[0], it.dates[-1]) for it in blocks if it is not None]


def execute(installation: Installation, result: dg.SensorResult) -> list[dg.ExecuteInProcessResult]:
    """Execute the requested runs."""
    return [
        installation.run(
            it.tags,
            [key.to_user_string() for key in it.asset_selection or ()],
            config=it.run_config,
        )
        for it in result.run_requests or ()
    ]


def fill(installation: Installation) -> Installation:
    """Six contiguous clients whose last four days are filled."""
    dates = installation.days_ago(3, 2, 1, 0)
    installation.agency.synced(dates, installation.workspaces[:6])
    installation.agency.forget_calls()
    return installation


@pytest.fixture
def stocked(installation: Installation) -> Installation:
    return fill(installation)


def test_a_run_over_just_the_changed_rows_brings_stored_events_into_the_numbers(
    stocked: Installation,
) -> None:
    first, second, _, _, _, last = stocked.workspaces[:6]
    today, yesterday = stocked.today, stocked.today - timedelta(days=1)
    before = {key: stocked.leads_this_month(key) for key in (first, second, last)}
    store_leads(stocked, first, today)
    store_leads(stocked, second, today, 2)
    store_leads(stocked, last, yesterday)

    result = evaluate(stocked)

    assert requested(stocked, result) == [
        ([last], yesterday, today),
        ([first, second], today, today),
    ]
    for request in result.run_requests or ():
        assert {key.to_user_string() for key in request.asset_selection or ()} == EVENT_ASSETS
    assert all(run.success for run in execute(stocked, result))
    assert {key: stocked.leads_this_month(key) - before[key] for key in before} == {
        first: 1,
        second: 2,
        last: 1 if yesterday.month == today.month else 0,
    }
    assert set(stocked.statuses().values()) == {"applied"}
    filled = cells([first, second], [today]) | cells([last], [yesterday, today])
    assert {asset: stocked.partitions(asset) for asset in EVENT_ASSETS} == dict.fromkeys(
        EVENT_ASSETS, (filled, set())
    )
    assert stocked.agency.calls() == {}, "Email Bison gets no call"
    assert requested(stocked, evaluate(stocked)) == []


def test_events_are_not_requested_twice_while_a_run_is_active_and_again_after_it_failed(
    stocked: Installation,
) -> None:
    first, second = stocked.workspaces[:2]
    store_leads(stocked, first, stocked.today)
    (request,) = evaluate(stocked).run_requests or ()
    assert [it.run_key for it in evaluate(stocked).run_requests or ()] == [request.run_key], (
        "an interrupted evaluation requests the same when it is repeated"
    )
    run = create_run_for_test(
        stocked.instance, status=DagsterRunStatus.STARTED, tags=dict(request.tags)
    )
    store_leads(stocked, second, stocked.today)

    assert requested(stocked, evaluate(stocked)) == [([second], stocked.today, stocked.today)]

    stocked.instance.report_run_failed(run)
    stocked.agency.sql(
        "UPDATE webhook_events SET tries = 1, next_try_at = now() + interval '15 seconds' "
        "WHERE workspace = :key",
        key=first,
    )
    assert requested(stocked, evaluate(stocked)) == [([second], stocked.today, stocked.today)]
    later = datetime.now(UTC) + timedelta(seconds=20)
    again = evaluate(stocked, replace(stocked.agency.app, now=lambda: later))
    assert requested(stocked, again) == [([first, second], stocked.today, stocked.today)]
    store_leads(stocked, first, stocked.today)
    keys = {
        it.run_key for it in (*(evaluate(stocked).run_requests or ()), *(again.run_requests or ()))
    }
    assert request.run_key not in keys


def test_events_that_a_failed_run_left_are_requested_again_after_five_minutes(
    stocked: Installation,
) -> None:
    store_leads(stocked, stocked.workspaces[0], stocked.today)
    later = datetime.now(UTC) + timedelta(minutes=5)

    (now,) = evaluate(stocked).run_requests or ()
    (then,) = evaluate(stocked, replace(stocked.agency.app, now=lambda: later)).run_requests or ()

    assert then.run_key != now.run_key, "Dagster starts no second run of one key"
    assert then.tags == now.tags


def test_a_run_that_a_person_canceled_is_not_requested_again_until_a_newer_event(
    stocked: Installation,
) -> None:
    first, second = stocked.workspaces[:2]
    store_leads(stocked, first, stocked.today)
    (request,) = evaluate(stocked).run_requests or ()
    assert request.tags["dagster/priority"] == "30"
    launched_run(stocked.instance, request.tags, DagsterRunStatus.CANCELED)
    store_leads(stocked, second, stocked.today)
    later = replace(stocked.agency.app, now=lambda: datetime.now(UTC) + timedelta(hours=1))

    assert requested(stocked, evaluate(stocked, later)) == [
        ([second], stocked.today, stocked.today)
    ]

    store_leads(stocked, first, stocked.today)
    assert requested(stocked, evaluate(stocked)) == [
        ([first, second], stocked.today, stocked.today)
    ]


def test_the_next_sync_applies_the_events_of_a_run_that_was_canceled(
    stocked: Installation,
) -> None:
    first = stocked.workspaces[0]
    store_leads(stocked, first, stocked.today - timedelta(days=1))
    (request,) = evaluate(stocked).run_requests or ()
    launched_run(stocked.instance, request.tags, DagsterRunStatus.CANCELED)

    stocked.agency.synced([stocked.today], [first])

    assert set(stocked.statuses().values()) == {"applied"}


def test_no_run_is_requested_for_a_client_that_was_deactivated(stocked: Installation) -> None:
    first, second = stocked.workspaces[:2]
    store_leads(stocked, first, stocked.today)
    store_leads(stocked, second, stocked.today)
    stocked.agency.sql("UPDATE clients SET active = false WHERE workspace = :key", key=first)

    assert requested(stocked, evaluate(stocked)) == [([second], stocked.today, stocked.today)]


def test_a_gap_in_the_rows_splits_the_dates_and_the_event_is_applied(
    stocked: Installation,
) -> None:
    workspace = stocked.workspaces[0]
    three, two, one, zero = stocked.days_ago(3, 2, 1, 0)
    for table, column in (
        ("raw_bison_stats", "date"),
        ("kpi_projections", "metric_date"),
        ("client_metrics", "metric_date"),
    ):
        stocked.agency.sql(
            f"DELETE FROM {table} WHERE workspace = :key AND {column} = :day",
            key=workspace,
            day=two,
        )
    store_leads(stocked, workspace, three)

    result = evaluate(stocked)

    assert requested(stocked, result) == [([workspace], three, three), ([workspace], one, zero)]
    assert all(run.success for run in execute(stocked, result))
    assert set(stocked.statuses().values()) == {"applied"}


def test_rows_before_the_first_date_of_the_grid_are_recomputed_too(
    stocked: Installation,
) -> None:
    workspace, other = stocked.workspaces[:2]
    three, two, zero = stocked.days_ago(3, 2, 0)
    app = stocked.agency.app
    narrow = replace(app, settings=app.settings.model_copy(update={"first_date": two}))
    before = stocked.agency.rows()[workspace, three]["positive_replies_today"]
    store_leads(stocked, workspace, three)
    # The facts of its day were never fetched: it shows in no row.
    store_leads(stocked, other, three - timedelta(days=400))

    result = evaluate(stocked, narrow)

    assert requested(stocked, result) == [([workspace], two, zero)]
    execute(stocked, result)
    assert set(stocked.statuses().values()) == {"applied"}
    assert stocked.agency.rows()[workspace, three]["positive_replies_today"] == int(str(before)) + 1


def test_a_client_without_a_partition_is_named_and_stops_no_other(stocked: Installation) -> None:
    first, second = stocked.workspaces[:2]
    store_leads(stocked, first, stocked.today)
    stocked.instance.delete_dynamic_partition(WORKSPACE, first)

    alone = evaluate(stocked)
    store_leads(stocked, second, stocked.today)
    both = evaluate(stocked)

    assert alone.skip_reason is not None
    assert f"Events of {first} are pending" in str(alone.skip_reason.skip_message)
    assert requested(stocked, alone) == []
    assert requested(stocked, both) == [([second], stocked.today, stocked.today)]


def test_events_of_a_client_that_is_imported_later_are_requested_then(
    stocked: Installation,
) -> None:
    workspace = stocked.workspaces[0]
    stocked.agency.sql("UPDATE clients SET active = false WHERE workspace = :key", key=workspace)
    stocked.store(lead(stocked.agency.ids[workspace], stocked.today))
    assert set(stocked.statuses().values()) == {"unmatched"}
    assert requested(stocked, evaluate(stocked)) == []

    stocked.agency.sql("UPDATE clients SET active = true WHERE workspace = :key", key=workspace)

    assert requested(stocked, evaluate(stocked)) == [([workspace], stocked.today, stocked.today)]


def test_events_that_the_gateway_applied_are_not_requested(stocked: Installation) -> None:
    workspace = stocked.workspaces[0]
    before = stocked.leads_this_month(workspace)

    store_leads(stocked, workspace, stocked.today, realtime=True)

    assert requested(stocked, evaluate(stocked)) == []
    assert stocked.leads_this_month(workspace) == before + 1
