"""The specs of the assets: what Dagster's catalogue shows of them."""

from datetime import timedelta
from pathlib import Path

import dagster as dg
from sqlalchemy import Table

from kpi_pipeline.db.tables import (
    client_metrics,
    clients,
    kpi_projections,
    raw_bison_stats,
    webhook_events,
)
from kpi_pipeline.domain.columns import MEANINGS
from kpi_pipeline.settings import Settings
from kpi_pipeline.sync.scope import KpiAsset

OWNERS = ["team:campaign-analytics"]
REGISTRY = dg.AssetKey("client_registry")
WEBHOOK_EVENTS = dg.AssetKey("webhook_events")
AGENCY_TOTALS = dg.AssetKey("agency_totals")

# Dagster shows its metadata on the page of the asset.
_LATEST = "The numbers below are those of one client's day: the partition that was written last."

# In a checkout; an installed package has no documents.
_DOCUMENTS = Path(__file__).parents[3] / "docs"


def table_metadata(table: Table) -> dict[str, dg.TableSchema | str]:
    """Name and columns of the table behind an asset, as the catalogue shows them."""
    columns = [
        dg.TableColumn(
            name=column.name,
            type=str(column.type),
            description=column.comment or MEANINGS.get(column.name),
            constraints=dg.TableColumnConstraints(nullable=bool(column.nullable)),
        )
        for column in table.columns
    ]
    return {
        "dagster/table_name": table.name,
        "dagster/column_schema": dg.TableSchema(columns=columns),
    }


def documentation(name: str) -> dict[str, dg.PathMetadataValue]:
    """The entry that leads to one of the documents, where they are."""
    document = _DOCUMENTS / name
    return {"documentation": dg.MetadataValue.path(document)} if document.exists() else {}


def kpi_specs(settings: Settings) -> list[dg.AssetSpec]:
    """The three assets over date × workspace, upstream first.

    They are skippable, as their step logs its materializations itself: see client_kpis.py. None
    depends on client_registry or webhook_events: the one is refreshed every night, the other gets
    events all day, and Dagster would call each row of the past "unsynced" from then on, though
    none of them changes. Dagster compares the times of the events here, as materializations that a
    step logs carry no data versions; and an asset that is only ever observed is "a new input".

    The freshness badge goes by the last materialization of any partition, so it sees less than the
    check `freshness`; their windows are the same.
    """
    # Dagster takes no shorter one.
    window = max(settings.stale_after, timedelta(minutes=1))
    numbers = {**_email_bison(settings), **_dashboard(settings), **documentation("numbers.md")}
    badge = dg.FreshnessPolicy.time_window(warn_window=window, fail_window=2 * window)
    return [
        dg.AssetSpec(
            KpiAsset.FACTS.value,
            group_name="bison",
            kinds={"api", "postgres"},
            owners=OWNERS,
            description="Daily facts of each client: what Email Bison counted on each day. One "
            "call of the daily series returns all days that the numbers of the chosen dates are "
            f"computed from. A day runs from midnight to midnight in {settings.day_zone.key}. "
            f"{_LATEST}",
            metadata={**table_metadata(raw_bison_stats), **numbers},
            freshness_policy=badge,
            skippable=True,
        ),
        dg.AssetSpec(
            KpiAsset.PROJECTIONS.value,
            deps=[KpiAsset.FACTS.value],
            group_name="kpis",
            kinds={"postgres"},
            owners=OWNERS,
            description="Month to date, the last 7, 14 and 30 days, the projection of the month's "
            "end and the progress towards the target, recomputed from the facts. The partitions of "
            "client_metrics show the numbers.",
            metadata={**table_metadata(kpi_projections), **numbers},
            freshness_policy=badge,
            skippable=True,
        ),
        dg.AssetSpec(
            KpiAsset.METRICS.value,
            deps=[KpiAsset.PROJECTIONS.value],
            group_name="kpis",
            kinds={"postgres", "table"},
            owners=OWNERS,
            description="The table that dashboards read: one row for each client and date, with "
            "labels, numbers, target and today's sending plan. Each partition shows its row, at "
            "most five minutes late, whatever changed it. The asset agency_totals has plots. "
            f"{_LATEST}",
            metadata={**table_metadata(client_metrics), **numbers},
            freshness_policy=badge,
            skippable=True,
        ),
    ]


def _email_bison(settings: Settings) -> dict[str, dg.MarkdownMetadataValue]:
    """The entry that leads to the Email Bison instances; each partition leads to its client's."""
    links = [f"[{it.name}]({it.url})" for it in settings.bison_instances]
    return {"email_bison": dg.MetadataValue.md(", ".join(links))} if links else {}


def _dashboard(settings: Settings) -> dict[str, dg.UrlMetadataValue]:
    """The entry that leads to the KPI dashboard; none if its port is any free one."""
    url = settings.dashboard_url
    if url is None and settings.dashboard_port:
        url = settings.dashboard_page.local_url
    return {} if url is None else {"dashboard": dg.MetadataValue.url(url)}


def agency_totals_spec() -> dg.AssetSpec:
    """The unpartitioned asset of the sums over all clients.

    It depends on no asset: Dagster would call it "unsynced" with each new lead of any client.
    """
    return dg.AssetSpec(
        AGENCY_TOTALS,
        group_name="kpis",
        kinds={"postgres"},
        owners=OWNERS,
        description="Today's rows of client_metrics, summed up over all active clients after each "
        "scheduled sync, for the plots below (Metadata, Plots): emails and positive replies from "
        "the first of the month, the projection of positive replies at the month's end, and the "
        "clients whose projection reaches nine tenths of their target. The sums leave out clients "
        "without numbers, whose number is the difference of clients and clients_with_numbers.",
        metadata=documentation("numbers.md"),
    )


def registry_spec() -> dg.AssetSpec:
    """The unpartitioned asset whose active clients are the `workspace` partitions."""
    return dg.AssetSpec(
        REGISTRY,
        group_name="bison",
        kinds={"api", "postgres"},
        owners=OWNERS,
        description="The clients. Compares the registry with Email Bison's own list of workspaces, "
        "adopts their names, checks the workspace that each API key belongs to, keeps the "
        "`workspace` partitions equal to the active clients, and each night measures how Email "
        "Bison counts.",
        metadata={**table_metadata(clients), **documentation("operations.md")},
    )


def webhook_events_spec() -> dg.AssetSpec:
    """The unpartitioned asset of the webhook inbox."""
    return dg.AssetSpec(
        WEBHOOK_EVENTS,
        group_name="bison",
        kinds={"webhook", "postgres"},
        owners=OWNERS,
        description="The webhook inbox: every event that Email Bison sent, that its event feed "
        "has, or that a file brought, and its status. Events count on top of the facts until a "
        "later fetch includes them: the numbers are computed from both. Applied events are "
        "reported here once a minute at most; materializing the asset reads the event feed, "
        "ingests dropped files, and matches events whose workspace has become a client's.",
        metadata={**table_metadata(webhook_events), **documentation("operations.md")},
    )
