"""The asset `webhook_events`, its checks, and the metadata that its materializations carry."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import dagster as dg

from kpi_pipeline.domain.events.event import EventStatus
from kpi_pipeline.orchestration.asset_checks.specs import specs_of
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.assets.specs import WEBHOOK_EVENTS, webhook_events_spec
from kpi_pipeline.orchestration.nightly_sync import LONGEST_WAIT_OF_ROUND, after_due_sync
from kpi_pipeline.orchestration.runs import FEED_TAG, is_syncing

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext
    from kpi_pipeline.db.check_queries.events import EventCount

# Dagster's page shows the metadata of a materialization in full.
_MAX_CLIENTS = 50

Metadata = dict[str, int | dg.TableMetadataValue]


@dg.multi_asset(specs=[webhook_events_spec()], name="ingest_events")
def webhook_events(
    context: dg.AssetExecutionContext, app: AppResource
) -> dg.MaterializeResult[None]:
    """Read the event feed, ingest dropped files, match events of new clients, and count all.

    A run that polls the feed does nothing else.
    """
    from kpi_pipeline.db.check_queries.events import count_events
    from kpi_pipeline.inbox.files import ingest_files
    from kpi_pipeline.inbox.ingest import inbox_of
    from kpi_pipeline.inbox.replay import match_and_date

    with app.opened() as opened:
        feed = _poll_feed(context, opened)
        if FEED_TAG in context.run.tags:
            return dg.MaterializeResult(asset_key=WEBHOOK_EVENTS, metadata=feed)
        inbox = inbox_of(opened, realtime=opened.settings.realtime)
        report = ingest_files(inbox, opened.settings.drop_dir, list(inbox.instance_urls))
        matched = match_and_date(inbox)
        with opened.engine.connect() as connection:
            counts = count_events(connection)
    context.log.info(
        f"{report.events} events ingested from {report.files} files, {report.rejected} rejected; "
        f"{matched} stored events got a client or a date."
    )
    return dg.MaterializeResult(asset_key=WEBHOOK_EVENTS, metadata={**_totals(counts), **feed})


def _poll_feed(context: dg.AssetExecutionContext, app: "AppContext") -> Metadata:
    """Poll the event feed, unless it is off; what to show of it."""
    from kpi_pipeline.sync.feed import poll_feed

    if app.settings.event_feed_minutes is None:
        return {}
    report = poll_feed(app, syncing=lambda: is_syncing(context.instance))
    for problem in report.problems:
        context.log.warning(problem)
    for instance in report.missing:
        context.log.warning(
            f"Instance {instance} has no event feed (GET /api/events answers 404). Its webhooks "
            "and the syncs work as before; it is asked again once a day."
        )
    if report.left:
        context.log.info(f"Left until syncs have ended: {', '.join(report.left)}.")
    return {
        "feed_clients": len(report.clients),
        "feed_new_events": report.new,
        "feed_corrected_events": report.moved,
        "feed_problems": len(report.problems),
    }


@dg.multi_asset_check(specs=specs_of(WEBHOOK_EVENTS), can_subset=True, name="check_webhook_events")
def webhook_event_checks(
    context: dg.AssetCheckExecutionContext, app: AppResource
) -> Iterator[dg.AssetCheckResult]:
    """Do the selected checks of the events."""
    from kpi_pipeline.orchestration.asset_checks.execution import run_checks

    names = {key.name for key in context.selected_asset_check_keys}
    with app.opened() as opened:
        after_due_sync(context, opened, LONGEST_WAIT_OF_ROUND)
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
