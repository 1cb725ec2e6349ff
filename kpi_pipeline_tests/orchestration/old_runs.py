from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from dagster import DagsterInstance
from pydantic import SecretStr
from sqlalchemy import URL, Row, text

from kpi_pipeline.orchestration.automation.clean_up import delete_runs
from kpi_pipeline.orchestration.runtime.storage import PooledEventLogStorage
from kpi_pipeline.services.dagster_home import dagster_instance
from kpi_pipeline.settings import load_settings

_MAKE_OLDER = (
    """
    UPDATE runs SET start_time = start_time - 86400 * :days, end_time = end_time - 86400 * :days,
        create_timestamp = create_timestamp - :days * interval '1 day',
        update_timestamp = update_timestamp - :days * interval '1 day'
    WHERE run_id = ANY(:runs)
    """,
    """
    UPDATE event_logs SET timestamp = timestamp - :days * interval '1 day'
    WHERE run_id = ANY(:runs)
    """,
)
# Every row of Dagster's database that names a run, or belongs to an event that is gone.
_TRACES = """
    SELECT run_id FROM runs UNION ALL SELECT run_id FROM run_tags
    UNION ALL SELECT run_id FROM event_logs
    UNION ALL SELECT 'an event that is gone' FROM asset_event_tags
        WHERE event_id NOT IN (SELECT id FROM event_logs)
"""


@contextmanager
def dagster_in(database: URL, state: Path) -> Iterator[DagsterInstance]:
    """Dagster as `kpi up` configures it."""
    address = SecretStr(database.render_as_string(hide_password=False))
    changed = {"state_dir": state, "dagster_database_url": address}
    with dagster_instance(load_settings().model_copy(update=changed)) as instance:
        yield instance


class OldRuns:
    """Lets time pass over the runs of a Dagster, and cleans up."""

    def __init__(self, instance: DagsterInstance) -> None:
        self.instance = instance

    def let_pass(self, days: float, *run_ids: str) -> None:
        """Make these runs, or all, so many days older, and their events with them."""
        chosen = list(run_ids or self.present())
        for statement in _MAKE_OLDER:
            self.sql(statement, days=days, runs=chosen)

    def clean_up(self, retention_days: float = 90) -> str:
        """Delete what ended longer ago than that; what the clean-up says of it."""
        return delete_runs(self.instance, timedelta(days=retention_days), ZoneInfo("Asia/Tokyo"))

    def present(self) -> set[str]:
        """The ids of all runs."""
        return {run.run_id for run in self.instance.get_runs()}

    def traces(self) -> set[str]:
        """The ids of all runs of which any row is left."""
        return {row[0] for row in self.sql(_TRACES)}

    def sql(self, statement: str, **values: object) -> Sequence[Row[Any]]:
        """Carry out a statement on Dagster's own tables."""
        storage = self.instance.event_log_storage
        assert isinstance(storage, PooledEventLogStorage)
        with storage.index_connection() as connection:
            result = connection.execute(text(statement), values)
            return result.all() if result.returns_rows else []
