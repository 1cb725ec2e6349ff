"""Clients with facts in a database and their inbox, at a time that the test sets."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Engine, text

from kpi_pipeline.db.coordination.locks import lock_client
from kpi_pipeline.db.events.inbox import Receipt
from kpi_pipeline.db.events.overlay import affected_dates
from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.domain.events.event import Event
from kpi_pipeline.inbox.ingest import Inbox, ingest
from kpi_pipeline_tests.db.stocked import AS_OF, TODAY, rows_of, stock_facts
from kpi_pipeline_tests.domain.bodies import CHICAGO

URLS = {"main": "https://mail.example", "emea": "https://emea.example/"}
# A quarter of an hour after the facts were fetched.
LATER = AS_OF + timedelta(minutes=15)

# What `fail_first_write` executes.
FULL_DISK = "RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'"
SHUT_DOWN = "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(5)"
# The server ends the connection with an error that is no OperationalError.
TIMED_OUT = "PERFORM set_config('transaction_timeout', '1', true); PERFORM pg_sleep(5)"
# The sequence counts writes that are rolled back, too.
_FAILING = """
    CREATE SEQUENCE writes;
    CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.workspace = '{workspace}' AND {condition} THEN {statement}; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER failing BEFORE INSERT OR UPDATE ON client_metrics
        FOR EACH ROW EXECUTE FUNCTION fail();
"""


def fail_writes(engine: Engine, workspace: str, condition: str, statement: str) -> None:
    """Have PostgreSQL execute a statement before each row of the client that meets a condition."""
    sql = _FAILING.format(workspace=workspace, condition=condition, statement=statement)
    with engine.begin() as connection:
        connection.execute(text(sql))


def fail_rows_above(engine: Engine, workspace: str, leads: int) -> None:
    """Let writing the client's rows fail if a day has more leads than that."""
    condition = f"NEW.positive_replies_today > {leads}"
    fail_writes(engine, workspace, condition, "RAISE EXCEPTION 'poisonous'")


def fail_first_write(engine: Engine, workspace: str, problem: str) -> None:
    """Let the first attempt to write the client's rows meet a problem of the server."""
    fail_writes(engine, workspace, "nextval('writes') = 1", problem)


@dataclass
class Clients:
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
            update_rows(
                connection,
                [workspace],
                since=first,
                until=last,
                zone=self.tz,
                source="sync",
                dates=shown,
            )

    def rows(self) -> dict[tuple[str, date], dict[str, Any]]:
        """client_metrics, by client and date."""
        with self.engine.connect() as connection:
            rows = rows_of(connection, client_metrics)
        return {(it["workspace"], it["metric_date"]): dict(it) for it in rows}

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

    def affected(self, workspaces: Collection[str]) -> dict[str, list[date]]:
        """The dates that the clients' pending events change."""
        with self.engine.connect() as connection:
            return affected_dates(connection, workspaces, self.today)
