"""The asset `client_registry`, and its check."""

import asyncio
import time
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

import dagster as dg

from kpi_pipeline.checks.bison import registry_matches_bison
from kpi_pipeline.db.registry.clients import lock_active
from kpi_pipeline.domain.outside_names import for_markdown
from kpi_pipeline.orchestration.asset_checks.specs import specs_of
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.assets.specs import REGISTRY, registry_spec
from kpi_pipeline.orchestration.failures import failure
from kpi_pipeline.orchestration.partitions import WORKSPACE, add_workspaces, remove_workspaces
from kpi_pipeline.orchestration.runs import is_syncing

# Measuring takes a minute of calls, which must not delay a sync.
_LONGEST_WAIT_SECONDS = 600

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext
    from kpi_pipeline.sync.registry import RegistryReport


@dg.multi_asset(
    specs=[registry_spec()],
    check_specs=specs_of(REGISTRY),
    can_subset=True,
    name="refresh_client_registry",
)
def client_registry(
    context: dg.AssetExecutionContext, app: AppResource
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Compare the registry with Email Bison, and update the partitions of the grid.

    A run of the check alone does the same: the check reports what the comparison found. The nightly
    run then measures how each instance counts.
    """
    from kpi_pipeline.orchestration.asset_checks.execution import store_results
    from kpi_pipeline.sync.registry import refresh_registry

    with app.opened() as opened:
        report = asyncio.run(refresh_registry(opened))
        outcome = registry_matches_bison(_findings(report), report.active, report.listed)
        results = list(store_results(opened, [outcome]))
        _update_grid(context, opened)
    if context.selected_asset_check_keys:
        yield from results
    if not_compared := [*report.unread, *report.unanswered]:
        raise failure("\n".join(not_compared))
    for line in chain.from_iterable((*_findings(report).values(), report.not_listed)):
        context.log.warning(line)
    if REGISTRY in context.selected_asset_keys:
        yield dg.MaterializeResult(asset_key=REGISTRY, metadata=_metadata(report))
        _measure(context, app)


def _update_grid(context: dg.AssetExecutionContext, app: "AppContext") -> None:
    """Add the partitions of new clients, and remove those of inactive ones that nothing needs."""
    # Before the clients are read: one that is imported meanwhile is not among these.
    known = context.instance.get_dynamic_partitions(WORKSPACE)
    # An import that activates a client waits, and then adds its partition again.
    with app.engine.begin() as connection:
        active = lock_active(connection)
        add_workspaces(context.instance, active)
        inactive = set(known).difference(active)
        kept = remove_workspaces(context.instance, inactive, app.now())
    if kept:
        context.log.info(
            f"No longer active: {', '.join(kept)}. Runs or backfills of the last day cover their "
            "partitions; a later run removes them."
        )


def _measure(context: dg.AssetExecutionContext, app: AppResource) -> None:
    """Once a day, measure how each instance counts, after the nightly sync."""
    from kpi_pipeline.sync.measure import measure_if_due

    give_up = time.monotonic() + _LONGEST_WAIT_SECONDS
    while is_syncing(context.instance):
        if time.monotonic() > give_up:
            context.log.info("Syncs are in progress: the instances are measured another night.")
            return
        time.sleep(1)
    with app.opened() as opened:
        results = measure_if_due(opened)
    for result in results:
        if result.problem is not None:
            context.log.warning(f"Not measured: {result.problem}")
        for finding in result.findings:
            answer = finding.value or "undecided"
            context.log.info(f"{result.instance}: {finding.subject} {answer} ({finding.evidence})")


def _findings(report: "RegistryReport") -> dict[str, list[str]]:
    """The problems that the comparison found, by kind."""
    return {
        "unserved": report.unserved,
        "bad_keys": report.bad_keys,
        "unread": report.unread,
        "unanswered": report.unanswered,
        "vanished": report.vanished,
        "unchecked_keys": report.unchecked_keys,
        "webhooks": report.webhooks,
        "unchecked_webhooks": report.unchecked_webhooks,
        "unknown": report.unknown,
        "renamed": report.renamed,
    }


def _metadata(report: "RegistryReport") -> dict[str, int | dg.MarkdownMetadataValue]:
    lists = {**_findings(report), "not_listed": report.not_listed}
    # Where a list was not read, nothing is materialized.
    del lists["unread"], lists["unanswered"]
    numbers = {"active_clients": len(report.active), "listed_workspaces": report.listed}
    counts = {f"{name}_count": len(lines) for name, lines in lists.items()}
    texts = {
        name: dg.MetadataValue.md("\n".join(f"- {for_markdown(line)}" for line in lines))
        for name, lines in lists.items()
        if lines
    }
    return {"dagster/row_count": len(report.active), **numbers, **counts, **texts}
