"""Runs a block of clients × dates through Dagster within this process, without its daemon."""

import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import date

import dagster as dg

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.registry.clients import active_clients
from kpi_pipeline.definitions import build_definitions
from kpi_pipeline.orchestration.partitions import (
    WORKSPACE,
    add_workspaces,
    block_tags,
    contiguous_groups,
)
from kpi_pipeline.sync.scope import KpiAsset


def execute_block(
    app: AppContext,
    dagster_instance: dg.DagsterInstance,
    workspaces: Sequence[str],
    dates: Sequence[date],
    watching: Callable[[str, int], AbstractContextManager[None]],
) -> list[str]:
    """Materialize the three assets for `workspaces` × `dates`; return the ids of the runs.

    Clients that are not adjacent in Dagster's partitions take a run each. The runs are recorded
    like any other; `sync_log` holds the outcome of each client. Each run is carried out within
    `watching(run_id, number of its clients)`.
    """
    with app.engine.connect() as connection:
        active = [client.workspace for client in active_clients(connection)]
    add_workspaces(dagster_instance, active)
    job = build_definitions(app.settings).resolve_implicit_global_asset_job_def()
    run_ids = []
    for group in contiguous_groups(dagster_instance.get_dynamic_partitions(WORKSPACE), workspaces):
        run_id = str(uuid.uuid4())
        run_ids.append(run_id)
        with watching(run_id, len(group)):
            job.execute_in_process(
                instance=dagster_instance,
                run_id=run_id,
                asset_selection=[dg.AssetKey(asset.value) for asset in KpiAsset],
                tags=block_tags(group, dates),
                # The command prints a report; Dagster's page shows the run's log.
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                raise_on_error=False,
            )
    return run_ids
