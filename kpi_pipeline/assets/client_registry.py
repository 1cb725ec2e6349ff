"""The asset `client_registry`."""

import asyncio
from itertools import chain
from typing import TYPE_CHECKING

import dagster as dg

from kpi_pipeline.assets.resources import DeploymentResource
from kpi_pipeline.assets.specs import REGISTRY, registry_spec
from kpi_pipeline.errors import KpiError
from kpi_pipeline.partitions import sync_workspace_partitions

if TYPE_CHECKING:
    from kpi_pipeline.sync.registry import RegistryReport


@dg.multi_asset(specs=[registry_spec()], name="refresh_client_registry")
def client_registry(
    context: dg.AssetExecutionContext, deployment: DeploymentResource
) -> dg.MaterializeResult[None]:
    """Compare the registry with Email Bison, and bring the grid in line with it."""
    from kpi_pipeline.sync.registry import refresh_registry

    try:
        with deployment.opened() as opened:
            report = asyncio.run(refresh_registry(opened))
    except KpiError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    sync_workspace_partitions(context.instance, report.active)
    if report.unread:
        raise dg.Failure("\n".join(report.unread), allow_retries=False)
    trouble = (report.vanished, report.bad_keys, report.unchecked_keys, report.not_listed)
    for line in chain.from_iterable(trouble):
        context.log.warning(line)
    return dg.MaterializeResult(asset_key=REGISTRY, metadata=_metadata(report))


def _metadata(report: "RegistryReport") -> dict[str, int | dg.MarkdownMetadataValue]:
    lists = {
        "unknown": report.unknown,
        "renamed": report.renamed,
        "vanished": report.vanished,
        "bad_keys": report.bad_keys,
        "unchecked_keys": report.unchecked_keys,
        "not_listed": report.not_listed,
    }
    numbers = {"active_clients": len(report.active), "listed_workspaces": report.listed}
    counts = {f"{name}_count": len(lines) for name, lines in lists.items()}
    texts = {
        name: dg.MetadataValue.md("\n".join(f"- {line}" for line in lines))
        for name, lines in lists.items()
        if lines
    }
    return {"dagster/row_count": len(report.active), **numbers, **counts, **texts}
