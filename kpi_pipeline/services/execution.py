"""Runs a block through Dagster within this process, whether its daemon is up or not."""

import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date

import dagster as dg
from sqlalchemy import Engine

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.clients import active_clients
from kpi_pipeline.definitions import build_definitions
from kpi_pipeline.orchestration.partitions import (
    WORKSPACE,
    block_tags,
    contiguous_groups,
    sync_workspace_partitions,
)
from kpi_pipeline.services.progress import watch_run
from kpi_pipeline.sync.scope import KpiAsset


def execute_rectangle(
    app: AppContext,
    instance: dg.DagsterInstance,
    workspaces: Sequence[str],
    dates: Sequence[date],
) -> list[str]:
    """Materialize the three assets for `workspaces` × `dates`; return the ids of the runs.

    Clients that are not adjacent in the grid take a run each. The runs are recorded like any
    other; how each client fared stands in `sync_log`.
    """
    with app.engine.connect() as connection:
        active = [client.workspace for client in active_clients(connection)]
    sync_workspace_partitions(instance, active)
    job = build_definitions(app.settings).resolve_implicit_global_asset_job_def()
    run_ids = []
    for group in contiguous_groups(instance.get_dynamic_partitions(WORKSPACE), workspaces):
        run_id = str(uuid.uuid4())
        run_ids.append(run_id)
        title = f"{min(dates)} … {max(dates)}"
        with _watched(app.engine, run_id, len(group), title):
            job.execute_in_process(
                instance=instance,
                run_id=run_id,
                asset_selection=[dg.AssetKey(step.value) for step in KpiAsset],
                tags=block_tags(group, dates),
                # The report says what happened; the run's log is in Dagster's page.
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                raise_on_error=False,
            )
    return run_ids


@contextmanager
def _watched(engine: Engine, run_id: str, clients: int, title: str) -> Iterator[None]:
    """Draw the progress bar beside the block."""
    over = threading.Event()
    watcher = threading.Thread(
        target=watch_run, args=(engine, run_id, clients, title, over.is_set), daemon=True
    )
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
