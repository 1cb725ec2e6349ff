"""The metadata of each partition: what Dagster's page shows of one client's day.

Its numbers are one text, a table in Markdown with the client's name and the date at its head. As
entries of their own, Dagster would show those of the partition that was written last as the asset's
own, and plot all of them in one line that jumps from client to client. What can be plotted is in
the asset `agency_totals`.

A partition of `client_metrics` has the numbers of its row, and one of `raw_bison_stats` what its
run fetched. One of `kpi_projections` has none: they are those of `client_metrics`, and each entry
makes every materialization of a backfill larger.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import dagster as dg

from kpi_pipeline.domain.columns import FACT_COUNTS, PARTITION_COLUMNS, PERCENTAGES
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.domain.outside_names import for_markdown
from kpi_pipeline.orchestration.partitions import DATE, WORKSPACE
from kpi_pipeline.sync.scope import KpiAsset

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext
    from kpi_pipeline.db.metrics import DayNumbers
    from kpi_pipeline.sync.run import ClientOutcome

# The entry with the numbers.
NUMBERS = "numbers"

_UNKNOWN = "–"
_FORMATS = [(name, "{:,} %" if name in PERCENTAGES else "{:,}") for name in PARTITION_COLUMNS]
_FACT_FORMATS = [(name, "{:,}") for name in FACT_COUNTS]


def partition(workspace: str, day: date) -> dg.MultiPartitionKey:
    """The partition key of one client's day."""
    return dg.MultiPartitionKey({DATE: day.isoformat(), WORKSPACE: workspace})


def instance_urls(app: "AppContext") -> dict[str, str]:
    """The address of each Email Bison instance, by name."""
    return {instance.name: instance.base_url for instance in app.instances().values()}


def materializations(
    asset: KpiAsset, outcomes: Iterable["ClientOutcome"], urls: Mapping[str, str]
) -> list[dg.AssetMaterialization]:
    """One for each partition that a run filled; `urls` are those of the Email Bison instances."""
    return [
        dg.AssetMaterialization(
            asset.value,
            partition=partition(outcome.workspace, day),
            metadata=_metadata(asset, outcome, numbers, urls),
        )
        for outcome in outcomes
        if outcome.error is None
        for day, numbers in outcome.numbers.items()
    ]


def row_materialization(numbers: "DayNumbers", urls: Mapping[str, str]) -> dg.AssetMaterialization:
    """That of a row of `client_metrics`, as a run over its partition would log it."""
    return dg.AssetMaterialization(
        KpiAsset.METRICS.value,
        partition=partition(numbers.workspace, numbers.date),
        metadata=_row_metadata(numbers, urls),
    )


def shown_numbers(materialization: dg.AssetMaterialization) -> str | None:
    """The numbers of a materialization, as they are compared; None if it has none."""
    entry = materialization.metadata.get(NUMBERS)
    return str(entry.value) if isinstance(entry, dg.MarkdownMetadataValue) else None


def _metadata(
    asset: KpiAsset, outcome: "ClientOutcome", numbers: "DayNumbers", urls: Mapping[str, str]
) -> dict[str, Any]:
    if asset is KpiAsset.METRICS:
        return _row_metadata(numbers, urls)
    if asset is KpiAsset.PROJECTIONS or numbers.facts is None or numbers.facts_as_of is None:
        return {"as_of": dg.TimestampMetadataValue(numbers.as_of.timestamp())}
    fetch = f"{outcome.key_used} key, {counted(outcome.api_calls, 'call')}, {outcome.seconds:.1f} s"
    return {
        NUMBERS: _table(numbers, _FACT_FORMATS, numbers.facts, urls),
        "as_of": dg.TimestampMetadataValue(numbers.facts_as_of.timestamp()),
        "fetch": dg.TextMetadataValue(fetch if outcome.api_calls else "no call: they were stored"),
    }


def _row_metadata(numbers: "DayNumbers", urls: Mapping[str, str]) -> dict[str, Any]:
    return {
        NUMBERS: _table(numbers, _FORMATS, numbers.metrics, urls),
        "as_of": dg.TimestampMetadataValue(numbers.as_of.timestamp()),
    }


def _table(
    numbers: "DayNumbers",
    formats: Sequence[tuple[str, str]],
    values: Sequence[int | Decimal | None],
    urls: Mapping[str, str],
) -> dg.MarkdownMetadataValue:
    """The values below the client's name, which leads to its Email Bison, and the date."""
    client, url = for_markdown(numbers.client), urls.get(numbers.instance)
    lines = [f"|{client if url is None else f'[{client}]({url})'}|{numbers.date}|", "|-|-:|"]
    lines += [
        f"|{name}|{_UNKNOWN if value is None else form.format(value)}|"
        for (name, form), value in zip(formats, values, strict=True)
    ]
    return dg.MarkdownMetadataValue("\n".join(lines))
