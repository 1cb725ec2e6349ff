"""Clients, facts, rows and events of many days, inserted in a few words."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import uuid4
from zlib import crc32
from zoneinfo import ZoneInfo

from sqlalchemy import Engine, Table, insert

from kpi_pipeline.checks.outcome import Outcome
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.tables import client_metrics, raw_bison_stats, webhook_events
from kpi_pipeline.db.upsert import upsert
from kpi_pipeline.domain.calendar import day_start, days_between
from kpi_pipeline_tests.db.stocked import DAY_COUNTS, imported, record

CHICAGO = ZoneInfo("America/Chicago")
ONE_DAY = timedelta(days=1)
# A Wednesday; clocks went forward on Sunday the 8th.
TODAY = date(2026, 3, 18)
YESTERDAY = TODAY - ONE_DAY


def local(day: date, hour: int = 0, minute: int = 0) -> datetime:
    """A moment in Chicago."""
    return datetime.combine(day, time(hour, minute), CHICAGO).astimezone(UTC)


def problems(found: Outcome, of: str = "problem") -> list[tuple[Any, Any]]:
    """Each affected client with its problem."""
    return [(it["workspace"], it[of]) for it in found.problems]


@dataclass
class Stock:
    """The tables, filled by a test."""

    engine: Engine
    vault: Vault

    def clients(self, *names: str, **changed: Any) -> None:
        records = [record(crc32(name.encode()), name, **changed) for name in names]
        imported(self.engine, self.vault, *records)

    def facts(self, workspace: str, first: date, last: date | None = None, **changed: Any) -> None:
        """Facts of these days, 0 of everything unless `changed`."""
        row = {**dict.fromkeys(DAY_COUNTS, 0), **changed}
        self._put(raw_bison_stats, "date", workspace, first, last, **row)

    def rows(self, workspace: str, first: date, last: date | None = None, **changed: Any) -> None:
        """Rows of `client_metrics` of these days, in which nothing is known unless `changed`."""
        row = {
            "workspace_name": workspace,
            "display_name": workspace,
            "metric_type": "mtd",
            "source": "sync",
            **changed,
        }
        self._put(client_metrics, "metric_date", workspace, first, last, **row)

    def _put(
        self,
        table: Table,
        column: str,
        workspace: str,
        first: date,
        last: date | None,
        without: Collection[date] = (),
        as_of: datetime | None = None,
        **values: Any,
    ) -> None:
        """The same row for each day, requested at the end of the day unless `as_of` is given."""
        row = {"workspace": workspace, **values}
        rows = [
            {**row, column: day, "as_of": as_of or day_start(day + ONE_DAY, CHICAGO)}
            for day in days_between(first, last or first)
            if day not in without
        ]
        with self.engine.begin() as connection:
            upsert(connection, table, rows)

    def events(self, workspace: str | None, day: date, number: int = 1, **changed: Any) -> None:
        """Leads of that day, delivered by webhooks at noon and applied, unless `changed`."""
        row = {
            "instance": "main",
            "source": "webhook",
            "arrived_at": local(day, 12),
            "body": b"{}",
            "event_type": "lead_interested",
            "workspace": workspace,
            "metric": "interested",
            "happened_at": local(day, 12),
            "business_date": day,
            "status": "applied",
            **changed,
        }
        rows = [{**row, "idempotency_key": f"key {uuid4()}"} for _ in range(number)]
        with self.engine.begin() as connection:
            connection.execute(insert(webhook_events), rows)
