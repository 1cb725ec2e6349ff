"""Nightly syncs as Dagster and the KPI database hold them, without a daemon and without a Bison."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.test_utils import create_run_for_test
from pydantic import SecretStr
from sqlalchemy import Engine

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.sync_log import SyncEntry, store_entry
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.orchestration.partitions import GRID_ASSETS, add_workspaces, block_tags
from kpi_pipeline.orchestration.runs import RETRY_OF, RUN_KEY, SCHEDULE
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.db.stocked import imported, record
from kpi_pipeline_tests.orchestration.ticks import end_tick, leave_tick

NIGHTLY = "daily_kpi_sync"
CLIENTS = ("acme", "birch", "cedar")
# Runs are created on the real clock, after their tick.
TICK = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
LAST = TICK.date()
FIRST = LAST - timedelta(days=7)


class Nights:
    """An installation of three clients at the moment `passed` after now."""

    def __init__(
        self, instance: DagsterInstance, engine: Engine, vault: Vault, **settings: str
    ) -> None:
        self.instance = instance
        self.engine = engine
        self.passed = timedelta(0)
        secrets = {name: SecretStr(value) for name, value in settings.items()}
        self.app = AppContext(Settings(**secrets), engine, vault, lambda: self.now)  # type: ignore[arg-type]
        names = [it.capitalize() for it in CLIENTS]
        imported(engine, vault, *(record(101 + n, name) for n, name in enumerate(names)))
        add_workspaces(instance, CLIENTS)

    @property
    def now(self) -> datetime:
        return datetime.now(UTC) + self.passed

    def begin(self, tick: datetime = TICK, *, on: bool = True) -> None:
        """The schedule's tick begins."""
        leave_tick(self.instance, NIGHTLY, at=tick, on=on, ended=False)

    def end_of_tick(self, *, good: bool = True) -> None:
        end_tick(self.instance, NIGHTLY, good=good)

    def run(
        self,
        clients: Sequence[str] = CLIENTS,
        tick: datetime = TICK,
        tags: Mapping[str, str] | None = None,
    ) -> dg.DagsterRun:
        """A run over the grid that the tick requested, not started."""
        of_tick = {SCHEDULE: NIGHTLY, RUN_KEY: f"{tick.isoformat()} {clients[0]}..{clients[-1]}"}
        return self._created({**of_tick, **(tags or {})}, clients)

    def retry(self, run: dg.DagsterRun, client: str) -> dg.DagsterRun:
        """The run with which `retry_failed_clients` tries one client again."""
        return self._created({RETRY_OF: run.run_id}, [client])

    def start(self, run: dg.DagsterRun) -> None:
        self._report(run, "PIPELINE_START")

    def end(self, run: dg.DagsterRun, *, good: bool = True) -> None:
        """The run ends."""
        if good:
            self._report(run, "PIPELINE_SUCCESS")
        else:
            self.instance.report_run_failed(run)

    def sync(
        self, *clients: str, error: str | None = None, first: date = FIRST, last: date = LAST
    ) -> None:
        """Log that these clients were fetched, or failed."""
        fields: dict[str, Any] = {"key_used": "workspace", "api_calls": 2, "seconds": 1}
        fields |= {"waiting_seconds": 0, "calling_seconds": 1}
        with self.engine.begin() as connection:
            for client in clients:
                entry = SyncEntry(
                    run_id=f"a run of {client} at {self.now}",
                    workspace=client,
                    first_date=first,
                    last_date=last,
                    error=error,
                    finished_at=self.now,
                    **fields,
                )
                store_entry(connection, entry)

    def checks(self, *, schedule: str = "data_checks", good: bool = True) -> dg.DagsterRun:
        """A run of checks that this schedule requested, and that ended."""
        run: dg.DagsterRun = create_run_for_test(
            self.instance, tags={SCHEDULE: schedule}, status=DagsterRunStatus.STARTED
        )
        self.end(run, good=good)
        return run

    def _created(self, tags: dict[str, str], clients: Sequence[str]) -> dg.DagsterRun:
        run: dg.DagsterRun = create_run_for_test(
            self.instance,
            asset_selection=frozenset(GRID_ASSETS),
            tags={**block_tags(clients, days_between(FIRST, LAST)), **tags},
            status=DagsterRunStatus.NOT_STARTED,
        )
        return run

    def _report(self, run: dg.DagsterRun, event: str) -> None:
        self.instance.report_dagster_event(dg.DagsterEvent(event, run.job_name), run.run_id)
