"""An installation with failing checks and syncs, whose clock and receivers the test sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Engine, delete

from kpi_pipeline.alerts.delivery import Receiver, receivers_of
from kpi_pipeline.alerts.evaluate import Evaluation, evaluate
from kpi_pipeline.alerts.problem import Problem
from kpi_pipeline.app import AppContext
from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.sync_log import SyncEntry, store_entry
from kpi_pipeline.db.tables import check_outcomes
from kpi_pipeline.db.upsert import upsert
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.bison_sandbox.receiver import Received
from kpi_pipeline_tests.db.stocked import TODAY

# A Wednesday afternoon in Chicago.
START = datetime(2026, 3, 18, 20, 0, tzinfo=UTC)
PAGE = "https://dagster.agency.example"


def problem(cause: str = "freshness", *clients: str, **changed: Any) -> Problem:
    fields: dict[str, Any] = {
        "cause": cause,
        "name": cause,
        "title": f"{cause} of client_metrics",
        "severity": Severity.ERROR,
        "since": START,
        "what": "Some rows are old. Start the refresh.",
        "clients": clients,
    }
    return Problem(**{**fields, **changed})


@dataclass
class Office:
    """An installation at the moment `passed` after START."""

    engine: Engine
    vault: Vault
    urls: Sequence[str]
    passed: timedelta = timedelta(0)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def now(self) -> datetime:
        return START + self.passed

    @property
    def receivers(self) -> list[Receiver]:
        return receivers_of(self.app.settings.alert_urls)

    @property
    def app(self) -> AppContext:
        urls = tuple(SecretStr(url) for url in self.urls)
        settings = Settings(alert_urls=urls, dagster_url=PAGE, **self.settings)
        return AppContext(settings, self.engine, self.vault, lambda: self.now)

    def evaluate_at(self, minutes: float, *others: Problem) -> Evaluation:
        """Evaluate the alerts so many minutes after the start."""
        self.passed = timedelta(minutes=minutes)
        return evaluate(self.app, self.receivers, others)

    def check(
        self, name: str = "freshness", *clients: str, passed: bool = False, **changed: Any
    ) -> None:
        """Store an outcome of a check."""
        row = {
            "check_name": name,
            "asset": "client_metrics",
            "passed": passed,
            "severity": "ERROR",
            "description": f"{len(clients)} clients are stale. Start the refresh.",
            "offenders": [{"workspace": it, "age_hours": 4} for it in clients],
            "more": 0,
            "clients": list(clients),
            "checked_at": self.now,
            "failing_since": None if passed else self.now,
        }
        with self.engine.begin() as connection:
            connection.execute(delete(check_outcomes).where(check_outcomes.c.check_name == name))
            upsert(connection, check_outcomes, [{**row, **changed}])

    def sync(self, workspace: str, error: str | None = None, *, calls: int = 2) -> None:
        """Log what a run did for a client, now."""
        entry = SyncEntry(
            run_id=f"a run {self.passed}",
            workspace=workspace,
            first_date=TODAY,
            last_date=TODAY,
            error=error,
            key_used="workspace" if calls else None,
            api_calls=calls,
            seconds=1,
            waiting_seconds=0,
            calling_seconds=1,
            finished_at=self.now,
        )
        with self.engine.begin() as connection:
            store_entry(connection, entry)


def titles(received: Sequence[Received]) -> list[str]:
    return [str(it.body["title"]) for it in received]


def json_url(url: str, path: str = "/in") -> str:
    """The URL of a receiver, in apprise's syntax."""
    return url.replace("http://", "json://") + path
