"""Dagster's three storages in PostgreSQL, as those of dagster-postgres, but for two things.

They bear with a server that is restarted: dagster-postgres tries for eleven seconds to connect, and
what breaks in the middle it never does again. An event that could not be written fails the step
that it tells of, and its partitions turn red though their rows are there.

And the event log keeps its connections. dagster-postgres opens two fresh ones for every event, and
writes the "planned" events of a run one by one; a run over 936 partitions of 3 assets plans 2,808
before it starts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, Self, TypeVar, cast

from dagster import DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.config import pg_config
from dagster._core.storage.event_log import SqlEventLogStorageTable
from dagster._serdes import ConfigurableClassData
from dagster_postgres import (
    PostgresEventLogStorage,
    PostgresRunStorage,
    PostgresScheduleStorage,
)
from dagster_postgres.utils import (
    DagsterPostgresException,
    create_pg_engine,
    pg_url_from_config,
    set_pg_statement_timeout,
)
from sqlalchemy import Connection, Engine, event

from kpi_pipeline.db.retry import retry_while_disconnected

# Events of one kind alone; Dagster's batches are like that.
_BATCHED = (
    {DagsterEventType.ASSET_MATERIALIZATION_PLANNED},
    {DagsterEventType.ASSET_MATERIALIZATION},
)
_INSERT = SqlEventLogStorageTable.insert().returning(
    SqlEventLogStorageTable.c.id, sort_by_parameter_order=True
)

MethodT = TypeVar("MethodT", bound=Callable[..., Any])


def _repeated(method: MethodT) -> MethodT:
    """The method, done again as long as the server is away; it may be done twice.

    It is for what is read, for what is set to a value, and for events: one that is written twice
    says the same twice, and one that is lost leaves the grid wrong.
    """

    @wraps(method)
    def patient(*args: Any, **kwargs: Any) -> Any:
        return retry_while_disconnected(partial(method, *args, **kwargs))

    return cast(MethodT, patient)


class _Patient:
    """What the three have in common: they wait for the server, and are built by their own name."""

    postgres_url: str
    _engine: Engine

    @classmethod
    def config_type(cls) -> Any:
        """The same configuration as that of dagster-postgres."""
        return pg_config()

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Build this class, as soon as the server answers: the base class builds itself by name."""
        build: Callable[..., Any] = cls
        url = pg_url_from_config(config_value)
        create_tables = config_value.get("should_autocreate_tables", True)

        def built() -> Any:
            try:
                return build(url, create_tables, inst_data)
            except DagsterPostgresException as error:
                # That it gave up is all that this one tells.
                raise error.__cause__ or error from None

        return cast(Self, retry_while_disconnected(built))

    def optimize_for_webserver(
        self, statement_timeout: int, pool_recycle: int, max_overflow: int
    ) -> None:
        """Keep a connection for the page, which is tried before it is used.

        As it is in dagster-postgres, the page's first queries after a restart fail.
        """
        self._engine.dispose()
        self._engine = create_pg_engine(
            self.postgres_url,
            isolation_level="AUTOCOMMIT",
            pool_size=1,
            max_overflow=max_overflow,
            pool_pre_ping=True,
            pool_recycle=pool_recycle,
        )

        def limit(connection: Any, _: object) -> None:
            set_pg_statement_timeout(connection, statement_timeout)

        event.listen(self._engine, "connect", limit)

    @contextmanager
    def _patient_connection(self) -> Iterator[Connection]:
        with retry_while_disconnected(self._engine.connect) as connection:
            yield connection


class RetryingRunStorage(_Patient, PostgresRunStorage):
    """The runs of dagster-postgres, for a server that may be restarted. Named in dagster.yaml."""

    def connect(self) -> Any:
        """A connection, as soon as the server answers."""
        return self._patient_connection()

    # All that is read of runs goes through the first two.
    fetchall = _repeated(PostgresRunStorage.fetchall)
    fetchone = _repeated(PostgresRunStorage.fetchone)
    handle_run_event = _repeated(PostgresRunStorage.handle_run_event)
    add_run_tags = _repeated(PostgresRunStorage.add_run_tags)


class RetryingScheduleStorage(_Patient, PostgresScheduleStorage):
    """The ticks of dagster-postgres, for a server that may be restarted. Named in dagster.yaml."""

    def connect(self, run_id: str | None = None) -> Any:  # noqa: ARG002 - as the base class has it
        """A connection, as soon as the server answers."""
        return self._patient_connection()


class PooledEventLogStorage(_Patient, PostgresEventLogStorage):
    """The event log of dagster-postgres with a pool, and events in batches.

    Named in dagster.yaml.
    """

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        super().__init__(postgres_url, should_autocreate_tables, inst_data)
        self._engine = create_pg_engine(
            postgres_url,
            isolation_level="AUTOCOMMIT",
            pool_size=2,
            max_overflow=20,
            # A restart of the server, or a firewall's silence, must not cost an event.
            pool_pre_ping=True,
            pool_recycle=600,
        )

    def _connect(self) -> Any:
        return self._patient_connection()

    # What a step reads and writes: where that fails, the step fails for good.
    has_dynamic_partition = _repeated(PostgresEventLogStorage.has_dynamic_partition)
    get_dynamic_partitions = _repeated(PostgresEventLogStorage.get_dynamic_partitions)
    store_event = _repeated(PostgresEventLogStorage.store_event)

    @_repeated
    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store a batch in a few statements.

        The base class does so for materializations alone, and has SQLAlchemy compile a statement
        for all rows of each batch anew, a tenth of the processor time of a run.
        """
        if {event.get_dagster_event().event_type for event in events} not in _BATCHED:
            super().store_event_batch(events)
            return
        with self._connect() as connection:
            ids = connection.scalars(_INSERT, [self._event_to_row(event) for event in events]).all()
        # The last event of each asset is what the catalogue shows of it.
        latest = {
            event.get_dagster_event().asset_key: (event, event_id)
            for event, event_id in zip(events, ids, strict=True)
        }
        with self.index_transaction() as connection:
            self._store_asset_event_tags(connection, events, ids)
            for event, event_id in latest.values():
                self._store_asset_event(connection, event, event_id)

    def dispose(self) -> None:
        """Close the connections; the base class has none to close."""
        super().dispose()
        self._engine.dispose()
