"""Dagster's three storages in PostgreSQL: those of dagster-postgres, with three differences.

They retry while the server restarts. dagster-postgres tries for eleven seconds to connect, and
never repeats a statement that broke: an event that could not be written fails its step, and the
partitions turn red although their rows are written.

The event log and the runs pool their connections, and events are written in batches.
dagster-postgres opens a connection for every query and two for every event, and writes the
"planned" events of a run one by one: a run over 936 partitions of 3 assets plans 2,808 before it
starts.

Their configuration may be empty: the address then comes from the settings.
"""

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial, wraps
from typing import Any, Self, TypeVar, cast

from dagster import DagsterEvent, DagsterEventType, EventLogEntry, RunsFilter
from dagster_postgres import (
    PostgresEventLogStorage,
    PostgresRunStorage,
    PostgresScheduleStorage,
)
from dagster_postgres.utils import (
    DagsterPostgresException,
    pg_config,
    pg_url_from_config,
)
from sqlalchemy import Connection, Engine, Insert, inspect, select

from kpi_pipeline.db.server.engine import REFUSED_SECONDS, pooled_engine
from kpi_pipeline.db.server.retry import retry_while_disconnected
from kpi_pipeline.db.upsert import given_rows, rows_as_json
from kpi_pipeline.orchestration import runs
from kpi_pipeline.orchestration.dagster_private import (
    TIMEOUT_MESSAGE,
    DaemonHeartbeat,
    SqlEventLogStorageTable,
)
from kpi_pipeline.orchestration.runtime.databases import storage_address
from kpi_pipeline.orchestration.runtime.event_rows import event_rows
from kpi_pipeline.orchestration.runtime.one_daemon import ClaimOfDaemon
from kpi_pipeline.settings import load_settings

# Events of these types are stored in one INSERT; a run over partitions plans its checks with them.
_BATCHED = {
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    DagsterEventType.ASSET_MATERIALIZATION,
    DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
}
# Connections of a process: how many are kept while they are used, and for how many threads.
_KEPT, _AT_ONCE = 1, 2
_SLOT_SECONDS = 20.0
_COLUMNS = [it.name for it in SqlEventLogStorageTable.c if it.name != "id"]


def _insert_events() -> Insert:
    """Insert the rows of the parameter `rows`, in the order of their ids; return the ids.

    With a parameter for each value, SQLAlchemy and the server take twice as long.
    """
    rows = given_rows(SqlEventLogStorageTable, _COLUMNS)
    selected = select(*(rows.c[name] for name in _COLUMNS))
    inserted = SqlEventLogStorageTable.insert().from_select(_COLUMNS, selected)
    return inserted.returning(SqlEventLogStorageTable.c.id)


_INSERT = _insert_events()

MethodT = TypeVar("MethodT", bound=Callable[..., Any])


def _retried(method: MethodT) -> MethodT:
    """The method, repeated while the server is unreachable. It may be done twice.

    For reads, for setting a value, and for events: an event that is written twice says the same
    twice, while a lost one leaves the grid wrong.
    """

    @wraps(method)
    def retried(*args: Any, **kwargs: Any) -> Any:
        return retry_while_disconnected(partial(method, *args, **kwargs))

    return cast(MethodT, retried)


def _asked_once(method: MethodT) -> MethodT:
    """The method of Dagster's that says whether a table or column exists, asked until it does.

    Dagster reads the catalog of the database for each run, tick and batch of events.
    """
    name = f"_found_{method.__name__}"

    @wraps(method)
    def asked(self: Any, *arguments: Any) -> bool:
        found: set[tuple[Any, ...]] = self.__dict__.setdefault(name, set())
        known = tuple(it for it in arguments if not isinstance(it, Connection))
        if known not in found and method(self, *arguments):
            found.add(known)
        return known in found

    return cast(MethodT, asked)


class _Pool:
    """The connections of a process to a database of Dagster's, which its three storages share.

    Two threads have a connection at a time. One that has one may have another without waiting:
    Dagster asks for it within the first one's block, and two that wait for each other would never
    end.
    """

    def __init__(self, url: str, statement_timeout: int | None) -> None:
        limits = {} if statement_timeout is None else {"statement_timeout": str(statement_timeout)}
        self.engine = pooled_engine(url, _KEPT, limits)
        self._slots = threading.BoundedSemaphore(_AT_ONCE)
        self._held = threading.local()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Wait until this thread may have a connection, and let others have one after the block."""
        depth = getattr(self._held, "depth", 0)
        # If none was given back by then, one connection more is better than no answer.
        taken = depth == 0 and self._slots.acquire(timeout=_SLOT_SECONDS)
        self._held.depth = depth + 1
        try:
            yield
        finally:
            self._held.depth = depth
            if taken:
                self._slots.release()


_pools: weakref.WeakValueDictionary[tuple[str, int | None, int], _Pool] = (
    weakref.WeakValueDictionary()
)
_opening = threading.Lock()


def _pool(url: str, statement_timeout: int | None = None) -> _Pool:
    key = (url, statement_timeout, os.getpid())
    with _opening:
        found = _pools.get(key)
        if found is None:
            found = _pools[key] = _Pool(url, statement_timeout)
        return found


class _RetryingStorage:
    """What the three share: they retry to connect, and are built from the settings or by name."""

    postgres_url: str
    _engine: Engine
    # Without them, the storage is yet to be made.
    _tables: frozenset[str]

    def __init__(
        self, postgres_url: str, should_autocreate_tables: bool = True, inst_data: Any = None
    ) -> None:
        # Shared by all storages of the process, in place of a connection for each query.
        self._pool = _pool(postgres_url)
        with retry_while_disconnected(self._pool.engine.connect) as connection:
            missing = not self._tables <= set(inspect(connection).get_table_names())
        # Where it makes tables, it opens connections of its own, beside the pool.
        of_dagster: Any = super()
        of_dagster.__init__(postgres_url, should_autocreate_tables and missing, inst_data)
        self._engine = self._pool.engine

    @classmethod
    def config_type(cls) -> Any:
        """The configuration of dagster-postgres."""
        return pg_config()

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> Self:
        """Build this class once the server answers; the base class would build itself, by name."""
        build: Callable[..., Any] = cls
        configured = "postgres_url" in config_value or "postgres_db" in config_value
        url = pg_url_from_config(config_value) if configured else storage_address(load_settings())
        create_tables = config_value.get("should_autocreate_tables", True)

        def built() -> Any:
            try:
                return build(url, create_tables, inst_data)
            except DagsterPostgresException as error:
                # It says only that dagster-postgres gave up; its cause says why.
                raise error.__cause__ or error from None

        return cast(Self, retry_while_disconnected(built))

    def optimize_for_webserver(
        self,
        statement_timeout: int,
        pool_recycle: int,  # noqa: ARG002 - as the base class has them
        max_overflow: int,  # noqa: ARG002
    ) -> None:
        """Limit the time of the page's statements, in milliseconds.

        dagster-postgres keeps a connection for the page, and does not test it: the page's first
        queries after a restart fail. Ours are tested, and as few as elsewhere.
        """
        self._engine.dispose()
        self._pool = _pool(self.postgres_url, statement_timeout)
        self._engine = self._pool.engine

    @contextmanager
    def _retried_connection(self) -> Iterator[Connection]:
        with (
            self._pool.slot(),
            retry_while_disconnected(
                self._pool.engine.connect, seconds=REFUSED_SECONDS
            ) as connection,
        ):
            yield connection


class RetryingRunStorage(_RetryingStorage, PostgresRunStorage):
    """The run storage of dagster-postgres that survives a restart, with a connection pool.

    Named in dagster.yaml. The daemon reads runs and backfills several times a second.
    """

    _tables = frozenset({"runs", "instance_info"})

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._claim = ClaimOfDaemon(self)

    def connect(self) -> Any:
        """A connection, once the server answers."""
        return self._retried_connection()

    has_run_stats_index_cols = _asked_once(PostgresRunStorage.has_run_stats_index_cols)
    # All reads of runs go through the first two.
    fetchall = _retried(PostgresRunStorage.fetchall)
    fetchone = _retried(PostgresRunStorage.fetchone)
    _handle_run_event = _retried(PostgresRunStorage.handle_run_event)
    _add_run_tags = _retried(PostgresRunStorage.add_run_tags)

    def handle_run_event(
        self, run_id: str, event: DagsterEvent, update_timestamp: datetime | None = None
    ) -> None:
        """Store the run's new state; tag a run that a person cancels.

        It may still fail, as its process dies or a client fails meanwhile, and is not to be retried
        for that.
        """
        self._handle_run_event(run_id, event, update_timestamp)
        canceled = event.event_type in (
            DagsterEventType.RUN_CANCELING,
            DagsterEventType.RUN_CANCELED,
        )
        if canceled and TIMEOUT_MESSAGE not in (event.message or ""):
            self._add_run_tags(run_id, {runs.CANCELED: run_id})

    def add_run_tags(self, run_id: str, new_tags: Mapping[str, str]) -> None:
        """Add the tags; Dagster retries no run that a person canceled."""
        if new_tags.get(runs.WILL_RETRY) == "true":
            found = self.get_runs(RunsFilter(run_ids=[run_id]))
            if any(map(runs.is_canceled, found)):
                new_tags = {**new_tags, runs.WILL_RETRY: "false"}
        self._add_run_tags(run_id, new_tags)

    def add_daemon_heartbeat(self, daemon_heartbeat: DaemonHeartbeat) -> None:
        """Store a heartbeat of the one daemon of this database; another daemon ends here."""
        self._claim.require(str(daemon_heartbeat.daemon_id))
        super().add_daemon_heartbeat(daemon_heartbeat)

    def dispose(self) -> None:
        """Close the connections; the base class has none to close."""
        self._claim.release()
        super().dispose()
        self._engine.dispose()
        # Dagster disposes of this storage and of the event log alone.
        if self.has_instance and (ticks := self._instance.schedule_storage) is not None:
            ticks.dispose()


class RetryingScheduleStorage(_RetryingStorage, PostgresScheduleStorage):
    """The schedule storage of dagster-postgres that survives a restart, with a connection pool.

    Named in dagster.yaml. The daemon reads and writes a dozen ticks every five seconds.
    """

    _tables = frozenset({"jobs"})
    has_instigators_table = _asked_once(PostgresScheduleStorage.has_instigators_table)
    _has_instigators_table = _asked_once(PostgresScheduleStorage._has_instigators_table)
    has_built_index = _asked_once(PostgresScheduleStorage.has_built_index)

    def connect(self, run_id: str | None = None) -> Any:  # noqa: ARG002 - as the base class has it
        """A connection, once the server answers."""
        return self._retried_connection()

    def dispose(self) -> None:
        """Close the connections; the base class has none to close."""
        super().dispose()
        self._engine.dispose()


class PooledEventLogStorage(_RetryingStorage, PostgresEventLogStorage):
    """The event log of dagster-postgres with a connection pool and events in batches.

    Named in dagster.yaml.
    """

    _tables = frozenset({"event_logs"})

    def _connect(self) -> Any:
        return self._retried_connection()

    has_table = _asked_once(PostgresEventLogStorage.has_table)
    # What a step reads and writes: an error here fails the step for good.
    has_dynamic_partition = _retried(PostgresEventLogStorage.has_dynamic_partition)
    get_dynamic_partitions = _retried(PostgresEventLogStorage.get_dynamic_partitions)
    _store_event = _retried(PostgresEventLogStorage.store_event)

    @property
    def supports_partition_subset_in_asset_materialization_planned_events(self) -> bool:
        """Let Dagster plan all partitions of an asset with one event: it becomes a row for each."""
        return True

    def store_event(self, event: EventLogEntry) -> None:
        """Store an event; one that plans a set of partitions is a batch."""
        if event.is_dagster_event and event.get_dagster_event().partitions_subset is not None:
            self.store_event_batch([event])
        else:
            self._store_event(event)

    @_retried
    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store a batch in a few statements.

        The base class does so for batches of materializations alone, and has SQLAlchemy compile one
        statement over all rows of each batch: a tenth of the CPU time of a run.
        """
        if not {event.get_dagster_event().event_type for event in events} <= _BATCHED:
            super().store_event_batch(events)
            return
        entries, rows = zip(*event_rows(events, self._event_to_row), strict=True)
        with self._connect() as connection:
            ids = sorted(connection.scalars(_INSERT, {"rows": rows_as_json(rows)}))
        # The catalogue shows the last event of each asset.
        latest = {
            asset_key: (event, event_id)
            for event, event_id in zip(entries, ids, strict=True)
            if (asset_key := event.get_dagster_event().asset_key) is not None
        }
        with self.index_transaction() as connection:
            self._store_asset_event_tags(connection, entries, ids)
            for event, event_id in latest.values():
                self._store_asset_event(connection, event, event_id)
        for event, event_id in zip(entries, ids, strict=True):
            if event.dagster_event_type == DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
                self.store_asset_check_event(event, event_id)

    def dispose(self) -> None:
        """Close the connections; the base class has none to close."""
        super().dispose()
        self._engine.dispose()
