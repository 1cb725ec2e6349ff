"""The asset `webhook_events`, and what the catalogue is told of it."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg

from kpi_pipeline.domain.events.event import EventStatus
from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.assets.specs import WEBHOOK_EVENTS, webhook_events_spec

if TYPE_CHECKING:
    from kpi_pipeline.db.check_queries.events import EventCount

# The page shows the metadata of one report whole.
_MOST_CLIENTS = 50

Metadata = dict[str, int | dg.TableMetadataValue]


@dg.multi_asset(specs=[webhook_events_spec()], name="take_up_events")
def webhook_events(
    context: dg.AssetExecutionContext, app: AppResource
) -> dg.MaterializeResult[None]:
    """Take up dropped files and the events that are a client's by now, and count them all."""
    from kpi_pipeline.db.check_queries.events import count_events
    from kpi_pipeline.inbox.files import ingest_files
    from kpi_pipeline.inbox.ingest import inbox_of
    from kpi_pipeline.inbox.replay import match_and_date

    try:
        with app.opened() as opened:
            inbox = inbox_of(opened, realtime=opened.settings.realtime)
            taken = ingest_files(inbox, opened.settings.drop_dir, list(inbox.instance_urls))
            settled = match_and_date(inbox)
            with opened.engine.connect() as connection:
                counts = count_events(connection)
    except KpiError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    context.log.info(
        f"{taken.events} events taken up from {taken.files} files, {taken.rejected} rejected; "
        f"{settled} given to a client that exists by now, or a date."
    )
    return dg.MaterializeResult(asset_key=WEBHOOK_EVENTS, metadata=_standing(counts))


def applied_report(applied: Mapping[str, int]) -> dg.AssetMaterialization:
    """What the catalogue is told of events that were applied, given their number by client."""
    metadata: Metadata = {
        "applied": sum(applied.values()),
        "applied_by_client": _by_client(applied, "applied"),
    }
    return dg.AssetMaterialization(WEBHOOK_EVENTS, metadata=metadata)


def _standing(counts: "list[EventCount]") -> Metadata:
    """How many events stand where."""
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
    """A table of clients and counts, in the order given; of those beyond the 50th, the number."""
    shown = list(counts.items())[:_MOST_CLIENTS]
    rest = list(counts.values())[_MOST_CLIENTS:]
    if rest:
        shown.append((f"{len(rest)} more", sum(rest)))
    records = [dg.TableRecord({"client": client, name: count}) for client, count in shown]
    columns = [dg.TableColumn("client"), dg.TableColumn(name, type="int")]
    return dg.MetadataValue.table(records, dg.TableSchema(columns=columns))
