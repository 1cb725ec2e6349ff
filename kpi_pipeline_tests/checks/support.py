"""Inserts clients, facts, rows and events in bulk, for tests of a few lines."""

import itertools
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Concatenate, ParamSpec, TypeVar
from zlib import crc32
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine, Table, delete, insert

from kpi_pipeline.checks.outcome import Outcome
from kpi_pipeline.db.tables import client_metrics, raw_bison_stats, webhook_events
from kpi_pipeline.db.upsert import upsert
from kpi_pipeline.db.vault import Vault
from kpi_pipeline.domain.calendar import day_start, days_between
from kpi_pipeline_tests.db.stocked import imported, record

CHICAGO = ZoneInfo("America/Chicago")
ONE_DAY = timedelta(days=1)
# A Wednesday; clocks went forward on Sunday the 8th.
TODAY = date(2026, 3, 18)
YESTERDAY = date(2026, 3, 17)

_NO_COUNTS = dict.fromkeys(
    ("sent", "replied", "interested", "bounced", "unsubscribed", "total_opens", "unique_opens"), 0
)
_DATES: dict[Table, str] = {raw_bison_stats: "date", client_metrics: "metric_date"}

_P = ParamSpec("_P")
_T = TypeVar("_T")


def local(day: date, hour: int = 0, minute: int = 0) -> datetime:
    """A moment in Chicago."""
    return datetime.combine(day, time(hour, minute), CHICAGO).astimezone(UTC)


def problems(found: Outcome, of: str = "problem") -> list[tuple[Any, Any]]:
    """Each affected client with its problem."""
    return [(it["workspace"], it[of]) for it in found.problems]


@dataclass
class Stock:
    """The tables, filled by a test. A day's facts were requested at the end of the day."""

    engine: Engine
    vault: Vault
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def clients(self, *names: str, instance: str = "main", active: bool = True) -> None:
        records = [
            record(crc32(name.encode()), name, instance=instance, active=active) for name in names
        ]
        imported(self.engine, self.vault, *records)

    def facts(
        self,
        workspace: str,
        first: date,
        last: date | None = None,
        *,
        without: Collection[date] = (),
        as_of: datetime | None = None,
        **counts: int,
    ) -> None:
        self._put(
            raw_bison_stats,
            {"workspace": workspace, **_NO_COUNTS, **counts},
            [it for it in days_between(first, last or first) if it not in without],
            as_of,
        )

    def rows(
        self,
        workspace: str,
        first: date,
        last: date | None = None,
        *,
        without: Collection[date] = (),
        as_of: datetime | None = None,
        **columns: int,
    ) -> None:
        self._put(
            client_metrics,
            {
                "workspace": workspace,
                "workspace_name": workspace,
                "display_name": workspace,
                "metric_type": "mtd",
                "source": "sync",
                **columns,
            },
            [it for it in days_between(first, last or first) if it not in without],
            as_of,
        )

    def events(
        self,
        workspace: str | None,
        day: date,
        number: int = 1,
        *,
        instance: str = "main",
        **changed: Any,
    ) -> None:
        """Leads of that day, delivered by webhooks at noon."""
        row = {
            "instance": instance,
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
        rows = [{**row, "idempotency_key": f"key {next(self._numbers)}"} for _ in range(number)]
        with self.engine.begin() as connection:
            connection.execute(insert(webhook_events), rows)

    def delete(self, table: Table, workspace: str, first: date, last: date) -> None:
        ours = table.c.workspace == workspace
        with self.engine.begin() as connection:
            days = table.c[_DATES[table]].between(first, last)
            connection.execute(delete(table).where(ours, days))

    def ask(
        self,
        rule: Callable[Concatenate[Connection, _P], _T],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        with self.engine.connect() as connection:
            return rule(connection, *args, **kwargs)

    def _put(
        self, table: Table, row: dict[str, Any], days: Collection[date], as_of: datetime | None
    ) -> None:
        rows = [
            {**row, _DATES[table]: day, "as_of": as_of or day_start(day + ONE_DAY, CHICAGO)}
            for day in days
        ]
        with self.engine.begin() as connection:
            upsert(connection, table, rows)
