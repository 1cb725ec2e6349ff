"""Every private name of Dagster's that the pipeline uses; no other file imports one.

A new version of Dagster may move or change them without notice. test_dagster_private.py tests each:
that it exists, and that it behaves as its user assumes. `make test-newest` runs that test against
the newest version. Where a public name does as well, it is used directly.

Private methods are overridden or called in one more place, runtime/storage.py: the test covers them
as well.
"""

import logging
import threading
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from dagster import AssetExecutionContext, AssetKey, AssetMaterialization, DagsterEvent

# Write materializations, and what was planned, in batches: see log_materializations, log_planned.
from dagster._core.events import AssetMaterializationPlannedData, DagsterEventBatchMetadata

# The clean-up of old runs asks in SQL which of them hold a partition's latest event, and deletes
# what Dagster leaves: no public way does either. Deleting a needed run turns its partitions grey.
from dagster._core.execution.backfill import (
    BULK_ACTION_TERMINAL_STATUSES,
)
from dagster._core.instance import RUNLESS_RUN_ID

# What the public `DagsterInstance` returns of schedules and sensors, for the check
# `automation_alive` and for alerts about failed ticks.
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickStatus,
)

# Tables of the event log: the clean-up reads them, and the event log inserts a batch at once.
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    AssetKeyTable,
    SqlEventLogStorageTable,
)

# Tables of the run storage, for the clean-up.
from dagster._core.storage.runs.schema import (
    BulkActionsTable,
    RunsTable,
    RunTagsTable,
)

# When a schedule is due: see cron_times.
from dagster._utils.schedules import schedule_execution_time_iterator

__all__ = [
    "BULK_ACTION_TERMINAL_STATUSES",
    "RUNLESS_RUN_ID",
    "RUN_MODULES",
    "AssetCheckExecutionsTable",
    "AssetEventTagsTable",
    "AssetKeyTable",
    "BulkActionsTable",
    "InstigatorState",
    "InstigatorType",
    "RunTagsTable",
    "RunsTable",
    "ScheduleInstigatorData",
    "SensorInstigatorData",
    "SqlEventLogStorageTable",
    "TickStatus",
    "cron_times",
    "log_materializations",
    "log_planned",
    "run_daemon",
    "serve_code",
    "set_backfill_interval",
]

# What a run imports of Dagster's own: the code server's fork server imports it once for all runs.
RUN_MODULES = (
    "dagster._grpc.impl",
    "dagster._core.executor.in_process",
    "dagster._core.storage.local_compute_log_manager",
)


def log_materializations(
    context: AssetExecutionContext, materializations: Sequence[AssetMaterialization]
) -> None:
    """Log the materializations of one asset from within its step, in batches.

    The public `context.log_event` writes each event in a transaction of its own. Measured with the
    pooled event log and DAGSTER_EVENT_BATCH_SIZE=500, on 2 busy cores: 936 partitions of 3 assets
    take 5.7 s here and 91.9 s there (1.4 and 16.7 s of CPU time); 312 take 2.4 and 31.9 s.
    """
    step = context.get_step_execution_context()
    batch = str(uuid.uuid4())
    for number, materialization in enumerate(materializations, start=1):
        position = DagsterEventBatchMetadata(batch, is_end=number == len(materializations))
        DagsterEvent.asset_materialization(step, materialization, position)


def log_planned(context: AssetExecutionContext, asset: AssetKey, partitions: Sequence[str]) -> None:
    """Log that this run was to materialize these partitions of an asset that it does not select.

    Dagster shows a partition as failed if a failed run planned it and did not materialize it.
    """
    batch = str(uuid.uuid4())
    for number, partition in enumerate(partitions, start=1):
        planned = DagsterEvent.build_asset_materialization_planned_event(
            context.run.job_name,
            context.get_step_execution_context().step.key,
            AssetMaterializationPlannedData(asset, partition=partition),
        )
        position = DagsterEventBatchMetadata(batch, is_end=number == len(partitions))
        context.instance.report_dagster_event(planned, context.run.run_id, batch_metadata=position)


def cron_times(
    cron_schedule: str | Sequence[str], timezone: str | None, since: float
) -> Iterator[datetime]:
    """When a schedule is due, from a timestamp on, with Dagster's own reading of DST changes."""
    return schedule_execution_time_iterator(since, cron_schedule, timezone)


def set_backfill_interval(seconds: int) -> None:
    """How often the daemon of this process evaluates backfills: Dagster has no setting for it.

    To be called before the daemon starts, whose loop reads the constant at each round.
    """
    from dagster._daemon import controller

    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = seconds


def run_daemon() -> None:
    """The command `dagster-daemon`, with the arguments of this process."""
    # Imported late, as in the two below: 0.2 s, which commands that only read states need not pay.
    from dagster._daemon.cli import main

    main()


def serve_code(
    module: str,
    location: str,
    socket: Path,
    *,
    ended: threading.Event,
    processes: BaseContext,
    threads: int,
) -> None:
    """Serve the definitions of `module` on a Unix socket until `ended` is set.

    The same as `dagster api grpc`, except that runs are started through `processes`, where Dagster
    always spawns: that starts a new Python for each run.
    """
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    from dagster._core.utils import FuturesAwareThreadPoolExecutor
    from dagster._grpc.server import DagsterApiServer, DagsterGrpcServer
    from dagster._utils.log import configure_loggers

    configure_loggers()
    logger = logging.getLogger("dagster.code_server")
    pool = FuturesAwareThreadPoolExecutor(max_workers=threads)
    api: Any = DagsterApiServer(
        server_termination_event=ended,
        logger=logger,
        server_threadpool_executor=pool,
        loadable_target_origin=LoadableTargetOrigin(module_name=module),
        location_name=location,
    )
    api._mp_ctx = processes
    server: Any = DagsterGrpcServer(
        server_termination_event=ended,
        dagster_api_servicer=api,
        logger=logger,
        threadpool_executor=pool,
        socket=str(socket),
    )
    logger.info("Serving the code location %s", location)
    server.serve()
    logger.info("The code server has stopped")
