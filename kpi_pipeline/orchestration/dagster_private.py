"""Every private name of Dagster's that the pipeline uses; no other file imports one.

A new version of Dagster may move or change them without notice. The files test_dagster_private*.py
test each: that it exists, and that it behaves as its user assumes. `make test-newest` runs them
against the newest version. Where a public name does as well, it is used directly.

Private methods are overridden or called in one more place, runtime/storage.py: the tests cover them
as well.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from inspect import signature
from itertools import product
from multiprocessing.context import BaseContext
from typing import Any, Protocol, cast

from dagster import (
    AssetCheckKey,
    AssetExecutionContext,
    AssetKey,
    AssetMaterialization,
    BackfillPolicy,
    DagsterEvent,
    DagsterEventType,
    DagsterInstance,
    InitLoggerContext,
    MultiPartitionKey,
    MultiPartitionsDefinition,
    PartitionsDefinition,
    RunRequest,
    __version__,
    logger,
)

# A part of a partition key: see list_grids_fast.
from dagster._core.definitions.partitions.utils.multi import PartitionDimensionKey

# Write materializations, and what was planned, in batches: see log_materializations, log_planned.
from dagster._core.events import (
    AssetMaterializationPlannedData,
    DagsterEventBatchMetadata,
    StepMaterializationData,
)

# The clean-up of old runs asks in SQL which of them hold a partition's latest event, and deletes
# what Dagster leaves: no public way does either. Deleting a needed run turns its partitions grey.
from dagster._core.execution.backfill import (
    BULK_ACTION_TERMINAL_STATUSES,
    BulkActionsFilter,
    BulkActionStatus,
    PartitionBackfill,
)
from dagster._core.instance import RUNLESS_JOB_NAME, RUNLESS_RUN_ID

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

# Tables of the run storage: for the clean-up, and for the claim to be the one daemon.
from dagster._core.storage.runs.schema import (
    BulkActionsTable,
    KeyValueStoreTable,
    RunsTable,
    RunTagsTable,
)

# Its metadata lists the tables of the schedule storage: see STORAGE_TABLES.
from dagster._core.storage.schedules.schema import JobTickTable

# What the run storage gets from each thread of a daemon before it works.
from dagster._daemon.types import DaemonHeartbeat

# When a schedule is due: see cron_times.
from dagster._utils.schedules import schedule_execution_time_iterator

from kpi_pipeline.orchestration.runs import RANGE_END, RANGE_START
from kpi_pipeline.probe import Address

__all__ = [
    "BULK_ACTION_TERMINAL_STATUSES",
    "RUNLESS_RUN_ID",
    "RUN_MODULES",
    "STORAGE_TABLES",
    "TIMEOUT_MESSAGE",
    "AssetCheckExecutionsTable",
    "AssetEventTagsTable",
    "AssetKeyTable",
    "BulkActionsTable",
    "DaemonHeartbeat",
    "InstigatorState",
    "InstigatorType",
    "KeyValueStoreTable",
    "PartitionBackfill",
    "RunTagsTable",
    "RunsTable",
    "ScheduleInstigatorData",
    "SensorInstigatorData",
    "SqlEventLogStorageTable",
    "TickStatus",
    "cron_times",
    "keep_tracebacks",
    "list_grids_fast",
    "log_materializations",
    "log_planned",
    "report_materializations",
    "run_daemon",
    "run_page",
    "serve_code",
    "set_backfill_cut",
    "set_backfill_pace",
    "show_last_checks",
    "unfinished_backfills",
    "write_lines_of_runs",
]

# All tables of Dagster's database, for dumps. Which daemon is alive is no content.
STORAGE_TABLES = sorted(
    {
        name
        for table in (SqlEventLogStorageTable, RunsTable, JobTickTable)
        for name in table.metadata.tables
    }
    - {"daemon_heartbeats"}
)

# How the daemon cuts a backfill into runs, and evaluates it: see set_backfill_cut and _pace.
_CUT = "_build_run_requests_with_backfill_policy"
_CUT_PARAMETERS = (
    "asset_keys",
    "asset_check_keys",
    "backfill_policy",
    "partition_keys",
    "partitions_def",
    "tags",
    "dynamic_partitions_store",
)
# Whether the page shows the last result of a check: see show_last_checks.
_IS_SHOWN = "targets_latest_materialization"
# What the command dagster-webserver makes its application with: see run_page.
_CREATE_APP = "create_app_from_workspace_process_context"
_EVALUATE = "execute_backfill_iteration_with_instigation_logger"

# The partition keys, and those of each dimension in order; the first and the last of each run.
RangesOf = Callable[
    [Collection[str], Mapping[str, Sequence[str]]], Sequence[tuple[str, str]] | None
]


class BackfillPace(Protocol):
    """When the daemon evaluates backfills. Moments are those of `time.monotonic`, in seconds."""

    def is_due(self, backfill_id: str, now: float) -> bool:
        """Whether to evaluate this backfill, which nobody has cancelled."""

    def evaluated(self, backfill_id: str, age: float, began: float, ended: float) -> None:
        """A backfill that was requested `age` seconds ago was evaluated."""

    def pause(self, reading_seconds: float) -> float:
        """How long to wait before all backfills are read again; that took `reading_seconds`."""


# Part of what Dagster says when it ends a run that takes too long, in the same event as a person's
# cancellation.
TIMEOUT_MESSAGE = "exceeding maximum runtime"

# What a run imports of Dagster's own: the code server's fork server imports it once for all runs.
RUN_MODULES = (
    "dagster._grpc.impl",
    "dagster._core.definitions.repository_definition.repository_data_builder",
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.secrets.env_file",
    "dagster._core.storage.legacy_storage",
    "dagster._core.storage.local_compute_log_manager",
    "dagster._core.storage.root",
    "dagster._core.system_config.composite_descent",
    "dagster._core.workspace.autodiscovery",
)


def log_materializations(
    context: AssetExecutionContext, materializations: Sequence[AssetMaterialization]
) -> None:
    """Log the materializations of one asset from within its step, in batches.

    The public `context.log_event` writes each event in a transaction of its own. Measured with the
    pooled event log and DAGSTER_EVENT_BATCH_SIZE=500, on 2 busy cores: 936 partitions of 3 assets
    take 5.7 s here and 91.9 s there (1.4 and 16.7 s of CPU time); 312 take 2.4 and 31.9 s.
    """
    _report(
        context.instance,
        context.run.job_name,
        context.run.run_id,
        materializations,
        context.get_step_execution_context().step.key,
    )


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


def unfinished_backfills(dagster_instance: DagsterInstance) -> Sequence[PartitionBackfill]:
    """The backfills that are in progress, or are being canceled."""
    unfinished = [it for it in BulkActionStatus if it not in BULK_ACTION_TERMINAL_STATUSES]
    return dagster_instance.get_backfills(filters=BulkActionsFilter(statuses=unfinished))


def report_materializations(
    dagster_instance: DagsterInstance, materializations: Sequence[AssetMaterialization]
) -> None:
    """Log materializations that belong to no run, in batches.

    The public `report_runless_asset_event` writes each in transactions of its own.
    """
    _report(dagster_instance, RUNLESS_JOB_NAME, RUNLESS_RUN_ID, materializations)


def _report(
    dagster_instance: DagsterInstance,
    job_name: str,
    run_id: str,
    materializations: Sequence[AssetMaterialization],
    step_key: str | None = None,
) -> None:
    """Store materializations as events of one moment, in batches."""
    batch, now = str(uuid.uuid4()), time.time()
    for number, materialization in enumerate(materializations, start=1):
        event = DagsterEvent(
            DagsterEventType.ASSET_MATERIALIZATION.value,
            job_name,
            step_key=step_key,
            event_specific_data=StepMaterializationData(materialization),
            message=f"Materialized value {materialization.label}." if step_key else None,
        )
        position = DagsterEventBatchMetadata(batch, is_end=number == len(materializations))
        dagster_instance.report_dagster_event(event, run_id, batch_metadata=position, timestamp=now)


def cron_times(
    cron_schedule: str | Sequence[str], timezone: str | None, since: float
) -> Iterator[datetime]:
    """When a schedule is due, from a timestamp on, with Dagster's own reading of DST changes."""
    return schedule_execution_time_iterator(since, cron_schedule, timezone)


def list_grids_fast() -> None:
    """Have this process list all keys of a grid of partitions fast, and once until they change.

    Dagster lists them for each backfill when it is requested, and again to evaluate it. Measured:
    0.7 s for 69,600 keys, of which nearly all goes into checks of each key's type, and 0.1 s here.
    """
    grid: Any = MultiPartitionsDefinition
    grid._get_partition_keys = _keys_of_grid


def _keys_of_grid(grid: Any, _current_time: datetime) -> Sequence[MultiPartitionKey]:
    # The dimensions are sorted by name, as their keys are in a partition key.
    return _product(
        tuple(
            (it.name, tuple(it.partitions_def.get_partition_keys())) for it in grid.partitions_defs
        )
    )


@lru_cache(maxsize=2)
def _product(dimensions: tuple[tuple[str, tuple[str, ...]], ...]) -> list[MultiPartitionKey]:
    keys = []
    valid = [
        [PartitionDimensionKey(name, key) for key in of_dimension if "|" not in key]
        for name, of_dimension in dimensions
    ]
    for parts in product(*valid):
        key = str.__new__(MultiPartitionKey, "|".join(part.partition_key for part in parts))
        key.dimension_keys = list(parts)
        keys.append(key)
    return keys


def set_backfill_cut(ranges_of: RangesOf, tags: Mapping[str, str]) -> None:
    """Have this process cut backfills into runs with `ranges_of`, each run with these tags.

    `ranges_of` gets the partition keys, and the keys of each dimension in their order; it returns
    the first and last partition key of each run, or None for a grid that it leaves to Dagster. So
    is a version of Dagster that does it another way, and an error: it is logged.
    """
    from dagster._core.definitions import automation_tick_evaluation_context as module

    log = logging.getLogger("dagster.daemon.backfills")
    dagsters = getattr(module, _CUT, None)
    if dagsters is None or tuple(signature(dagsters).parameters) != _CUT_PARAMETERS:
        log.warning("Dagster %s cuts backfills in another way: its own is used", __version__)
        return

    def build_run_requests(
        asset_keys: Sequence[AssetKey],
        asset_check_keys: Sequence[AssetCheckKey],
        backfill_policy: BackfillPolicy,
        partition_keys: Collection[str],
        partitions_def: PartitionsDefinition[Any],
        tags: Mapping[str, Any],
        dynamic_partitions_store: Any,
    ) -> Sequence[RunRequest]:
        given = (asset_keys, asset_check_keys, backfill_policy, partition_keys, partitions_def)
        tags = {**ours, **tags}
        ranges = None
        if (
            isinstance(partitions_def, MultiPartitionsDefinition)
            and backfill_policy.max_partitions_per_run is None
        ):
            order = {
                dimension.name: dimension.partitions_def.get_partition_keys(
                    dynamic_partitions_store=dynamic_partitions_store
                )
                for dimension in partitions_def.partitions_defs
            }
            try:
                ranges = ranges_of(partition_keys, order)
            except Exception:
                log.exception("The backfill could not be cut: Dagster cuts it")
        if ranges is None:
            requests: Sequence[RunRequest] = dagsters(
                *given, tags=tags, dynamic_partitions_store=dynamic_partitions_store
            )
            return requests
        return [
            RunRequest(
                asset_selection=list(asset_keys),
                asset_check_keys=list(asset_check_keys),
                tags={**tags, RANGE_START: first, RANGE_END: last},
            )
            for first, last in ranges
        ]

    ours = dict(tags)
    setattr(module, _CUT, build_run_requests)


def set_backfill_pace(pace: BackfillPace) -> None:
    """Have the daemon of this process evaluate backfills at this pace, not twice a minute.

    To be called before the daemon starts. Dagster has no setting for it.
    """
    from dagster._daemon import backfill as module
    from dagster._daemon.daemon import BackfillDaemon

    loop, evaluate = BackfillDaemon.core_loop, getattr(module, _EVALUATE)

    def core_loop(daemon: BackfillDaemon, process: Any, shutdown: threading.Event) -> Any:
        return loop(daemon, process, cast(threading.Event, _PacedEvent(shutdown, pace)))

    def evaluate_if_due(backfill: Any, *arguments: Any, **named: Any) -> Iterator[Any]:
        began = time.monotonic()
        # One that a person cancels is not to wait.
        requested = backfill.status == BulkActionStatus.REQUESTED
        if requested and not pace.is_due(backfill.backfill_id, began):
            return
        try:
            yield from evaluate(backfill, *arguments, **named)
        finally:
            age = time.time() - backfill.backfill_timestamp
            pace.evaluated(backfill.backfill_id, age, began, time.monotonic())

    setattr(BackfillDaemon, "core_loop", core_loop)  # noqa: B010 - mypy refuses to assign a method
    setattr(module, _EVALUATE, evaluate_if_due)


class _PacedEvent:
    """The daemon's event of its end; what the loop over backfills waits for it, `pace` decides."""

    def __init__(self, event: threading.Event, pace: BackfillPace) -> None:
        self._event, self._pace = event, pace
        self._began = time.monotonic()

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - Dagster's half minute
        ended = self._event.wait(self._pace.pause(time.monotonic() - self._began))
        self._began = time.monotonic()
        return ended


def keep_tracebacks() -> None:
    """Have Dagster's JSON log lines in this process hold tracebacks, which they lose otherwise."""
    import structlog
    from dagster._utils import log

    shared: Any = log.get_structlog_shared_processors
    setattr(  # noqa: B010 - mypy refuses to assign a function
        log,
        "get_structlog_shared_processors",
        lambda: [*shared(), structlog.processors.format_exc_info],
    )


def write_lines_of_runs(formatter: logging.Formatter) -> None:
    """Have runs of this process write their console lines in this form: Dagster's are coloured."""
    import dagster._loggers as module

    @logger(config_schema={"log_level": str, "name": str})
    def console(context: InitLoggerContext) -> logging.Logger:
        made = logging.Logger(context.logger_config["name"], context.logger_config["log_level"])
        handler = logging.StreamHandler()
        handler.setFormatter(formatter)
        made.addHandler(handler)
        return made

    setattr(module, "colored_console_logger", console)  # noqa: B010 - mypy refuses the assignment


def run_daemon() -> None:
    """The command `dagster-daemon`, with the arguments of this process."""
    # Imported late, as in the others: 0.2 s, which commands that only read states need not pay.
    from dagster._daemon.cli import main

    keep_tracebacks()
    main()


def show_last_checks() -> None:
    """Have the page of this process show the last result of each check, whatever followed it.

    Dagster shows a check as not evaluated as soon as its asset is materialized again. Ours are
    evaluated every few minutes, and cover all partitions. Each row that is reported is a
    materialization of its asset, so hardly any result would be shown, not even a failure.
    """
    from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

    async def is_shown(*_: object) -> bool:
        return True

    setattr(AssetCheckExecutionRecord, _IS_SHOWN, is_shown)


def run_page(
    guarded: Callable[[Any, str], Any],
    may_write: Callable[[Any], bool],
    arguments: Sequence[str],
) -> None:
    """The command `dagster-webserver`, with another ASGI application around that of its page.

    `guarded` gets Dagster's application and its path prefix. A connection for which `may_write` is
    False sees the page as `--read-only` shows it: what changes something is greyed out and refused.
    """
    from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
    from dagster_webserver import cli

    create_app = getattr(cli, _CREATE_APP)

    def create_guarded_app(
        context: WorkspaceProcessContext, path_prefix: str = "", *arguments: Any, **named: Any
    ) -> Any:
        create = context.create_request_context

        def create_request_context(source: Any = None) -> WorkspaceRequestContext:
            made = create(source)
            if may_write(source):
                return made
            return WorkspaceRequestContext(
                instance=made.instance,
                current_workspace=made.get_current_workspace(),
                process_context=made.process_context,
                version=made.version,
                source=source,
                read_only=True,
            )

        setattr(context, "create_request_context", create_request_context)  # noqa: B010 - as above
        return guarded(create_app(context, path_prefix, *arguments, **named), path_prefix)

    list_grids_fast()
    keep_tracebacks()
    show_last_checks()
    setattr(cli, _CREATE_APP, create_guarded_app)
    cli.dagster_webserver(arguments, auto_envvar_prefix="DAGSTER_WEBSERVER")


def serve_code(
    module: str,
    location: str,
    address: Address,
    *,
    ended: threading.Event,
    processes: BaseContext,
    threads: int,
    log_json: bool = False,
) -> None:
    """Serve the definitions of `module` at this address until `ended` is set.

    The same as `dagster api grpc`, except that runs are started through `processes`, where Dagster
    always spawns: that starts a new Python for each run.
    """
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    from dagster._core.utils import FuturesAwareThreadPoolExecutor
    from dagster._grpc.server import DagsterApiServer, DagsterGrpcServer
    from dagster._utils.log import configure_loggers

    keep_tracebacks()
    configure_loggers(formatter="json" if log_json else "colored")
    log = logging.getLogger("dagster.code_server")
    pool = FuturesAwareThreadPoolExecutor(max_workers=threads)
    api: Any = DagsterApiServer(
        server_termination_event=ended,
        logger=log,
        server_threadpool_executor=pool,
        loadable_target_origin=LoadableTargetOrigin(module_name=module),
        location_name=location,
    )
    api._mp_ctx = processes
    where: Mapping[str, Any] = {"socket": str(address)}
    if isinstance(address, tuple):
        where = {"host": address[0], "port": address[1]}
    server: Any = DagsterGrpcServer(
        server_termination_event=ended,
        dagster_api_servicer=api,
        logger=log,
        threadpool_executor=pool,
        **where,
    )
    log.info("Serving the code location %s", location)
    server.serve()
    log.info("The code server has stopped")
