"""webhook_event_sensor has the event feed polled: in runs of its own, after syncs."""

from dataclasses import replace
from datetime import timedelta

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from kpi_pipeline.orchestration.assets.specs import WEBHOOK_EVENTS
from kpi_pipeline.orchestration.automation.webhook_events import evaluate_events
from kpi_pipeline.orchestration.runs import FEED_TAG
from kpi_pipeline.sync.feed_due import FEED_TYPES
from kpi_pipeline_tests.orchestration.installation import Installation

pytestmark = pytest.mark.runs
CLIENTS = 4


@pytest.fixture
def installation(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """Four clients with rows of today, whose feed is polled every five minutes."""
    monkeypatch.setenv("KPI_EVENT_FEED_MINUTES", "5")
    agency = installation.agency.with_settings(event_feed_minutes=5)
    chosen = agency.workspaces[:CLIENTS]
    agency.sql("UPDATE clients SET active = false WHERE workspace <> ALL(:few)", few=chosen)
    agency.synced([installation.today], chosen)
    agency.forget_calls()
    installation.agency = agency
    return installation


def evaluate(installation: Installation, minutes: float = 0) -> list[dg.RunRequest]:
    """The runs that an evaluation in so many minutes requests for the feed."""
    app = installation.agency.app
    now = app.now() + timedelta(minutes=minutes)
    with dg.build_sensor_context(instance=installation.instance) as context:
        result = evaluate_events(context, replace(app, now=lambda: now))
    return [it for it in result.run_requests or () if FEED_TAG in it.tags]


def execute(installation: Installation, request: dg.RunRequest) -> dict[str, object]:
    """Execute the run; what its materialization shows."""
    assert request.asset_selection == [WEBHOOK_EVENTS]
    result = installation.run(request.tags, ["webhook_events"], checks=False)
    assert result.success
    event = installation.instance.get_latest_materialization_event(WEBHOOK_EVENTS)
    assert event is not None
    assert event.asset_materialization is not None
    return {name: it.value for name, it in event.asset_materialization.metadata.items()}


def polled(installation: Installation) -> int:
    """How many clients' feeds were read."""
    rows = installation.agency.sql("SELECT count(*) FROM event_feed WHERE read_at IS NOT NULL")
    return int(rows[0][0]) // len(FEED_TYPES)


def test_a_run_polls_the_feed_and_a_lead_that_no_webhook_brought_is_in_the_rows(
    installation: Installation,
) -> None:
    agency = installation.agency
    workspace = agency.workspaces[0]
    before = installation.leads_this_month(workspace)
    # Recorded times are whole seconds: this one lies after the sync.
    agency.bison.freeze((agency.app.now() + timedelta(seconds=2)).isoformat())
    body = {"workspace_id": agency.ids[workspace], "leads": 2, "deliver": False}
    agency.bison.control("POST", "mark-interested", body)

    (request,) = evaluate(installation)
    metadata = execute(installation, request)

    assert metadata["feed_clients"] == CLIENTS
    assert metadata["feed_problems"] == 0
    assert "dagster/row_count" not in metadata, "a poll counts no events"
    assert installation.leads_this_month(workspace) >= before + 2
    assert evaluate(installation) == [], "it is not due"
    assert len(evaluate(installation, minutes=6)) == 1


def test_one_poll_is_requested_at_a_time_and_not_while_a_sync_is_in_progress(
    installation: Installation,
) -> None:
    (request,) = evaluate(installation)
    poll = create_run_for_test(
        installation.instance, status=DagsterRunStatus.STARTED, tags=dict(request.tags)
    )
    assert evaluate(installation) == []
    installation.instance.report_run_failed(poll)
    facts = frozenset({dg.AssetKey("raw_bison_stats")})

    sync = create_run_for_test(
        installation.instance, status=DagsterRunStatus.STARTED, asset_selection=facts
    )
    assert evaluate(installation) == []
    execute(installation, request)
    assert polled(installation) == 0, "a poll that a sync overtakes leaves the calls to it"
    installation.instance.report_run_failed(sync)

    backfill = {"dagster/backfill": "abc"}
    create_run_for_test(
        installation.instance,
        status=DagsterRunStatus.STARTED,
        asset_selection=facts,
        tags=backfill,
    )
    (request,) = evaluate(installation)
    execute(installation, request)
    assert polled(installation) == CLIENTS


def test_an_instance_without_a_feed_is_logged_once_and_all_else_goes_on(
    installation: Installation,
) -> None:
    installation.agency.bison.variants(event_feed="missing")

    (request,) = evaluate(installation)

    assert execute(installation, request)["feed_problems"] == 0
    assert evaluate(installation, minutes=6) == []
    assert len(evaluate(installation, minutes=25 * 60)) == 1
