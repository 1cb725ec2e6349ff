"""The asset `webhook_events`, its checks, and the metadata that its materializations carry."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import dagster as dg

from kpi_pipeline.domain.events.event import EventStatus
from kpi_pipeline.orchestration.asset_checks.specs import specs_of
from kpi_pipeline.orchestration.assets.heartbeat import heartbeat
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.assets.specs import WEBHOOK_EVENTS, webhook_events_spec

if TYPE_CHECKING:
    from kpi_pipeline.db.check_queries.events import EventCount

# Dagster's page shows the metadata of a materialization in full.
_MAX_CLIENTS = 50

Metadata = dict[str, int | dg.TableMetadataValue]


@dg.multi_asset(specs=[webhook_events_spec()], name="ingest_events")
def webhook_events(
    context: dg.AssetExecutionContext, app: AppResource
) -> dg.MaterializeResult[None]:
    """Ingest dropped files, match events whose workspace has become a client's, and count all."""
    from kpi_pipeline.db.check_queries.events import count_events
    from kpi_pipeline.inbox.files import ingest_files
    from kpi_pipeline.inbox.ingest import inbox_of
    from kpi_pipeline.inbox.replay import match_and_date

    with app.opened() as opened:
        inbox = inbox_of(opened, realtime=opened.settings.realtime)
        report = ingest_files(inbox, opened.settings.drop_dir, list(inbox.instance_urls))
        matched = match_and_date(inbox)
        with opened.engine.connect() as connection:
            counts = count_events(connection)
    context.log.info(
        f"{report.events} events ingested from {report.files} files, {report.rejected} rejected; "
        f"{matched} stored events got a client or a date."
    )
    return dg.MaterializeResult(asset_key=WEBHOOK_EVENTS, metadata=_totals(counts))


@dg.multi_asset_check(specs=specs_of(WEBHOOK_EVENTS), can_subset=True, name="check_webhook_events")
def webhook_event_checks(
    context: dg.AssetCheckExecutionContext, app: AppResource
) -> Iterator[dg.AssetCheckResult]:
    """Do the selected checks of the events."""
    from kpi_pipeline.orchestration.asset_checks.execution import run_checks

    names = {key.name for key in context.selected_asset_check_keys}
    with heartbeat(context.run), app.opened() as opened:
        yield from run_checks(opened, names, context.instance)


def applied_report(applied: Mapping[str, int]) -> dg.AssetMaterialization:
    """The materialization that reports applied events, given their number by client."""
    metadata: Metadata = {
        "applied": sum(applied.values()),
        "applied_by_client": _by_client(applied, "applied"),
    }
    return dg.AssetMaterialization(WEBHOOK_EVENTS, metadata=metadata)


def _totals(counts: "list[EventCount]") -> Metadata:
    """The number of events by status and by client."""
    by_status = Counter[EventStatus]()
    by_client = Counter[str]()
    for count in counts:
        by_status[count.status] += count.events
        by_client[count.workspace or "(no client)"] += count.events
    return {
        "dagster/row_count": by_status.total(),
        **{f"events_{status}": by_status[status] for status in EventStatus},
        "events_by_client": _by_client(dict(by_client.most_common()), "events"),
    }


def _by_client(counts: Mapping[str, int], name: str) -> dg.TableMetadataValue:
    """A table of clients and counts, in the order given; one row sums up those beyond the 50th."""
    shown = list(counts.items())[:_MAX_CLIENTS]
    rest = list(counts.values())[_MAX_CLIENTS:]
    if rest:
        shown.append((f"{len(rest)} more", sum(rest)))
    records = [dg.TableRecord({"client": client, name: count}) for client, count in shown]
    columns = [dg.TableColumn("client"), dg.TableColumn(name, type="int")]
    return dg.MetadataValue.table(records, dg.TableSchema(columns=columns))
