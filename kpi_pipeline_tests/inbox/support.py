"""Clients with facts in a database, their inbox with a clock set by hand, and its drop folder."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Engine, text

from kpi_pipeline.db.inbox import Receipt
from kpi_pipeline.db.locks import lock_client
from kpi_pipeline.db.metrics import publish_metrics, recompute_projections
from kpi_pipeline.db.overlay import affected_dates
from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline.db.vault import Vault
from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.domain.events.event import Event
from kpi_pipeline.inbox.files import FilesReport, ingest_files
from kpi_pipeline.inbox.ingest import Inbox, ingest
from kpi_pipeline_tests.db.stocked import AS_OF, TODAY, rows_of, stock_facts
from kpi_pipeline_tests.domain.bodies import CHICAGO, content

URLS = {"main": "https://mail.example", "emea": "https://emea.example/"}
# A quarter of an hour after the facts were fetched.
LATER = AS_OF + timedelta(minutes=15)
Rows = dict[tuple[str, date], dict[str, Any]]

# Fails for any row of the client with more leads on a day than `most`.
POISON = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.workspace = '{workspace}' AND NEW.positive_replies_today > {most} THEN
            RAISE EXCEPTION 'poisonous';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON client_metrics
        FOR EACH ROW EXECUTE FUNCTION refuse();
"""


# The first attempt to write the client's rows meets a problem of the server. A sequence counts
# attempts that are rolled back, too.
BROKEN_OFF = """
    CREATE SEQUENCE attempts;
    CREATE FUNCTION break_off() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.workspace = '{workspace}' AND nextval('attempts') = 1 THEN
            {statement};
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER break_off BEFORE INSERT OR UPDATE ON client_metrics
        FOR EACH ROW EXECUTE FUNCTION break_off();
"""
FULL_DISK = "RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'"
SHUT_DOWN = "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(5)"
# The server ends the connection with an error that is no OperationalError.
TIMED_OUT = "PERFORM set_config('transaction_timeout', '1', true); PERFORM pg_sleep(5)"


@dataclass
class Agency:
    """The clients of one database; `at` is the inbox's current time."""

    engine: Engine
    vault: Vault
    at: datetime = LATER
    tz: ZoneInfo = CHICAGO
    urls: dict[str, str] = field(default_factory=lambda: dict(URLS))

    @property
    def today(self) -> date:
        """The business date of that moment."""
        return business_date(self.at, self.tz)

    def inbox(self, *, realtime: bool = True) -> Inbox:
        """Its inbox."""
        return Inbox(self.engine, self.tz, lambda: self.at, self.urls, realtime=realtime)

    def ingest(self, *events: Event, realtime: bool = True) -> list[Receipt]:
        """Ingest events that arrive together."""
        return ingest(self.inbox(realtime=realtime), events)

    def stock(
        self,
        workspace: str = "harbor",
        first: date = date(2026, 2, 1),
        last: date = TODAY,
        *,
        shown: Sequence[date] = (),
        **changed: Any,
    ) -> None:
        """Store facts, 3 leads a day unless `changed`, and the rows of `shown`, as a sync does."""
        with self.engine.begin() as connection:
            lock_client(connection, workspace)
            stock_facts(connection, workspace, first, last, **changed)
            for day in shown:
                recompute_projections(connection, [workspace], [day], self.tz, open_day=self.today)
                publish_metrics(connection, [workspace], [day], source="sync")

    def rows(self) -> Rows:
        """client_metrics, by client and date."""
        with self.engine.connect() as connection:
            return {
                (it["workspace"], it["metric_date"]): dict(it)
                for it in rows_of(connection, client_metrics)
            }

    def number(self, column: str, workspace: str = "harbor", day: date = TODAY) -> Any:
        """One number of one row."""
        return self.rows()[workspace, day][column]

    def events(self, *columns: str) -> list[Any]:
        """These columns of each stored event, in order of arrival."""
        rows = self.sql(f"SELECT {', '.join(columns)} FROM webhook_events ORDER BY id")
        return [row[0] if len(columns) == 1 else tuple(row) for row in rows]

    def sql(self, statement: str, **values: object) -> Sequence[Any]:
        """Execute a statement; return its rows."""
        with self.engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return result.all() if result.returns_rows else []

    def poison(self, workspace: str, most: int) -> None:
        """Let computing the client's rows fail if a day has more than `most` leads."""
        self.sql(POISON.format(workspace=workspace, most=most))

    def affected(self, workspaces: Collection[str]) -> dict[str, list[date]]:
        """The dates that the clients' pending events change."""
        with self.engine.connect() as connection:
            return affected_dates(connection, workspaces, self.today)


def moment(text_of_it: str) -> datetime:
    """An instant, from local time in Chicago with its offset, in UTC."""
    return datetime.fromisoformat(text_of_it).astimezone(UTC)


# The drop folder; the files' clock is set by hand.
WRITTEN = 1_000_000.0
AT_REST = WRITTEN + 3


def event(number: int, **changed: Any) -> dict[str, Any]:
    data = {"lead": {"id": number}, "campaign": {"id": 3}}
    return content("LEAD_INTERESTED", data, **changed)


def drop(path: Path, text: str | bytes) -> Path:
    """Write a file of that content at WRITTEN."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    os.utime(path, (WRITTEN, WRITTEN))
    return path


def lines(*contents: Mapping[str, Any] | str) -> str:
    return "".join((it if isinstance(it, str) else json.dumps(it)) + "\n" for it in contents)


def ingest_folder(agency: Agency, folder: Path, now: float = AT_REST) -> FilesReport:
    return ingest_files(agency.inbox(), folder, sorted(agency.urls), now=lambda: now)


def tree(folder: Path) -> list[str]:
    """The relative paths of all files below."""
    return sorted(str(it.relative_to(folder)) for it in folder.rglob("*") if it.is_file())


def keys(agency: Agency) -> list[str]:
    return [key.rsplit(" ", 2)[-2] for key in agency.events("idempotency_key")]
