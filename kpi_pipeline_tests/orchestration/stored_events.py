"""Events in an installation's inbox, stored as the gateway stores them with KPI_REALTIME off."""

import secrets
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
from sqlalchemy import text

from kpi_pipeline.app import AppContext
from kpi_pipeline.domain.events.event import Event, EventSource, EventStatus
from kpi_pipeline.inbox.ingest import inbox_of, ingest
from kpi_pipeline.orchestration.automation.webhook_events import evaluate_events
from kpi_pipeline.orchestration.partitions import WORKSPACE, block_from_tags
from kpi_pipeline_tests.orchestration.installation import Installation

Request = tuple[list[str], date, date]


def lead(workspace_id: int, day: date, **changed: Any) -> Event:
    """A lead of the workspace turned interested on that day; it arrives now."""
    fields: dict[str, Any] = {
        "instance": "main",
        "source": EventSource.WEBHOOK,
        "arrived_at": datetime.now(UTC),
        "body": b"{}",
        "idempotency_key": secrets.token_hex(8),
        "status": EventStatus.RECEIVED,
        "business_date": day,
        "event_type": "lead_interested",
        "bison_workspace_id": workspace_id,
        "metric": "interested",
    }
    return Event(**{**fields, **changed})


def store(installation: Installation, *events: Event, realtime: bool = False) -> list[int]:
    """Take the events in; their ids."""
    inbox = inbox_of(installation.agency.app, realtime=realtime)
    return [receipt.event_id for receipt in ingest(inbox, events)]


def store_leads(
    installation: Installation,
    workspace: str,
    day: date,
    number: int = 1,
    *,
    realtime: bool = False,
) -> list[int]:
    """Store so many leads of a client."""
    leads = [lead(installation.agency.ids[workspace], day) for _ in range(number)]
    return store(installation, *leads, realtime=realtime)


def look(
    installation: Installation, app: AppContext | None = None, cursor: str | None = None
) -> dg.SensorResult:
    """One evaluation of the sensor; the test sets the clock if it gives an app."""
    with dg.build_sensor_context(instance=installation.instance, cursor=cursor) as context:
        return evaluate_events(context, app or installation.agency.app)


def asked(installation: Installation, result: dg.SensorResult) -> list[Request]:
    """The clients and the first and last date of each requested run."""
    order = installation.instance.get_dynamic_partitions(WORKSPACE)
    ranges = [block_from_tags(request.tags, order) for request in result.run_requests or ()]
    return [(list(it.workspaces), it.dates[0], it.dates[-1]) for it in ranges if it is not None]


def carry_out(
    installation: Installation, requests: Sequence[dg.RunRequest]
) -> list[dg.ExecuteInProcessResult]:
    """Run what the sensor requested."""
    return [
        installation.run(
            request.tags, [key.to_user_string() for key in request.asset_selection or ()]
        )
        for request in requests
    ]


def rows_of(table: object) -> list[dict[str, object]]:
    """The rows of a table in metadata."""
    assert isinstance(table, dg.TableMetadataValue)
    return [dict(record.data) for record in table.records]


def statuses(installation: Installation) -> dict[int, str]:
    """The status of each event of the inbox."""
    rows = sql(installation, "SELECT id, status FROM webhook_events")
    return {row.id: row.status for row in rows}


def leads_this_month(installation: Installation, workspace: str) -> int:
    """The client's positive replies of the month, as today's row shows them."""
    number = installation.agency.rows()[workspace, installation.today]["positive_replies_mtd"]
    assert isinstance(number, int)
    return number


def sql(installation: Installation, statement: str, **values: object) -> Sequence[Any]:
    """Carry out a statement on the KPI tables."""
    with installation.agency.app.engine.begin() as connection:
        result = connection.execute(text(statement), values)
        return result.all() if result.returns_rows else []
