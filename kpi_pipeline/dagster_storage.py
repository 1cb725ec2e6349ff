"""Dagster's event log in PostgreSQL, on connections that are kept.

dagster-postgres opens two fresh connections for every event, and writes the "planned" events of a
run one by one. A run over 936 partitions of 3 assets plans 2,808 before it starts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dagster import DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.config import pg_config
from dagster._core.storage.event_log import SqlEventLogStorageTable
from dagster._serdes import ConfigurableClassData
from dagster_postgres import PostgresEventLogStorage
from dagster_postgres.utils import create_pg_engine, pg_url_from_config


class PooledEventLogStorage(PostgresEventLogStorage):
    """The event log of dagster-postgres with a pool, and planned events in batches.

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

    @classmethod
    def config_type(cls) -> Any:
        """The same configuration as that of dagster-postgres."""
        return pg_config()

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "PooledEventLogStorage":
        """Build this class: the base class builds itself by name."""
        return cls(
            pg_url_from_config(config_value),
            config_value.get("should_autocreate_tables", True),
            inst_data,
        )

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store a batch in a few statements; the base class has this for materializations alone."""
        planned = DagsterEventType.ASSET_MATERIALIZATION_PLANNED
        if {event.get_dagster_event().event_type for event in events} != {planned}:
            super().store_event_batch(events)
            return
        with self._connect() as connection:
            insert = self.prepare_insert_event_batch(events)
            result = connection.execute(insert.returning(SqlEventLogStorageTable.c.id))
            ids = [int(row[0]) for row in result.fetchall()]
        # The last event of each asset is what the catalogue shows of it.
        latest = {
            event.get_dagster_event().asset_key: (event, event_id)
            for event, event_id in zip(events, ids, strict=True)
        }
        with self.index_transaction() as connection:
            for event, event_id in latest.values():
                self._store_asset_event(connection, event, event_id)

    def dispose(self) -> None:
        """Close the connections; the base class has none to close."""
        super().dispose()
        self._engine.dispose()
