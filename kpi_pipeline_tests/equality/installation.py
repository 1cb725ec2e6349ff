"""Two clients of an instance whose truth is known, and everything that changes their rows."""

import json
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import SecretStr
from sqlalchemy import Engine, text

from kpi_pipeline.db.coordination.locks import lock_clients
from kpi_pipeline.db.day_zone import store_day_zone
from kpi_pipeline.db.events.overlay import pending_events
from kpi_pipeline.db.registry.client_import import ClientRecord, import_clients
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.domain.calendar import days_between, nightly_dates
from kpi_pipeline.domain.events.event import EventSource
from kpi_pipeline.domain.events.parse import parse_event
from kpi_pipeline.inbox.apply import apply_pending
from kpi_pipeline.inbox.feed import ingest_feed
from kpi_pipeline.inbox.ingest import inbox_of, ingest
from kpi_pipeline.inbox.replay import match_and_date
from kpi_pipeline.instances import InstanceSetting
from kpi_pipeline.settings import Settings
from kpi_pipeline.sync.run import ClientOutcome, run_sync
from kpi_pipeline.sync.scope import PartitionBlock
from kpi_pipeline_tests.domain.bodies import content, parsed
from kpi_pipeline_tests.equality.truth import TrueApp, Truth
from kpi_pipeline_tests.equality.worked_out import differences

CLIENTS = {"harbor": 101, "quay": 102}
# What `increment_metric` does, at the time of the test.
_FUNCTION = """
    INSERT INTO webhook_events (instance, source, arrived_at, idempotency_key, event_type,
        workspace, metric, status)
    SELECT 'main', 'function', :now, gen_random_uuid(), 'increment_metric', workspace,
        'interested', 'received'
    FROM clients WHERE active LIMIT 1
"""


class Installation:
    """The clients have rows of the last `rows` days and of today, of a sync at `start`."""

    def __init__(
        self, engine: Engine, vault: Vault, start: datetime, zone: ZoneInfo, rows: int = 7
    ) -> None:
        self.engine, self.vault = engine, vault
        self.truth = Truth(zone, start)
        self._events = 0
        setting = InstanceSetting("main", "https://mail.example", SecretStr("9|" + "a" * 48))
        self._settings = Settings(bison_instances=(setting,), bison_timezone=zone)
        with engine.begin() as connection:
            store_day_zone(connection, zone)
        for slug in CLIENTS:
            self.write(slug)
        self.sync(days_between(self.today - timedelta(days=rows), self.today))

    @property
    def app(self) -> TrueApp:
        """A process of the installation, with the settings of now."""
        changed = self._settings.model_copy(update={"bison_timezone": self.truth.zone})
        return TrueApp(changed, self.engine, self.vault, lambda: self.truth.now, truth=self.truth)

    @property
    def today(self) -> date:
        """The date for Email Bison."""
        return self.app.today()

    def write(self, slug: str, **changed: Any) -> None:
        """Import one client, as from a file that names these columns."""
        record = ClientRecord("main", CLIENTS[slug], slug.title(), **changed)
        with self.engine.begin() as connection:
            import_clients(
                connection,
                [record],
                targets_from=self.today.replace(day=1),
                vault=self.vault,
                zone=self.truth.zone,
            )

    def sync(self, dates: Sequence[date], *, fetch: bool = True) -> dict[str, ClientOutcome]:
        block = PartitionBlock(list(CLIENTS), dates)
        return {it.workspace: it for it in run_sync(self.app, block, fetch=fetch, run_id="a run")}

    def night(self) -> dict[str, ClientOutcome]:
        """The nightly sync."""
        return self.sync(days_between(*nightly_dates(self.today)))

    def bodies(self, slug: str, metric: str, *, late: timedelta = timedelta(0)) -> bytes:
        """Something happens, `late` ago; return the body of its webhook."""
        self._events += 1
        at = self.truth.now - late
        self.truth.happened.append((slug, metric, at))
        if metric == "sent":
            sent = {"scheduled_email": {"id": self._events, "sent_at": at.isoformat()}}
            body = content("EMAIL_SENT", sent, CLIENTS[slug])
        else:
            lead = {"lead": {"id": self._events}, "campaign": {"id": 3}}
            body = content("LEAD_INTERESTED", lead, CLIENTS[slug])
        return json.dumps(body).encode()

    def deliver(self, *bodies: bytes, realtime: bool = True) -> None:
        """Webhooks arrive together; without `realtime` they are only stored."""
        events = [parsed(body, self.truth.now, tz=self.truth.zone) for body in bodies]
        ingest(inbox_of(self.app, realtime=realtime), events)

    def read_feed(self, slug: str, body: bytes, recorded_at: datetime) -> None:
        """The feed of a client has the event of this webhook."""
        row = {"payload": json.loads(body), "created_at": recorded_at.isoformat()}
        event = parse_event(
            json.dumps(row).encode(),
            instance="main",
            source=EventSource.FEED,
            arrived_at=self.truth.now,
            tz=self.truth.zone,
        )
        ingest_feed(inbox_of(self.app, realtime=True), slug, [event])

    def call_function(self) -> None:
        """Somebody calls `increment_metric`."""
        with self.engine.begin() as connection:
            connection.execute(text(_FUNCTION), {"now": self.truth.now})

    def apply_waiting(self) -> None:
        """What the sensor does for the events that wait."""
        match_and_date(inbox_of(self.app, realtime=False))
        with self.engine.begin() as connection:
            waiting = [it.workspace for it in pending_events(connection, self.truth.now)]
            lock_clients(connection, waiting)
            apply_pending(connection, waiting, self.truth.zone, self.truth.now)

    def differences(self) -> list[tuple[Any, ...]]:
        """The cells that are not what their inputs say."""
        with self.engine.connect() as connection:
            return differences(connection, self.truth.zone)

    def sql(self, statement: str, **values: object) -> Sequence[Any]:
        """Execute a statement; return its rows."""
        with self.engine.begin() as connection:
            result = connection.execute(text(statement), values)
            return result.all() if result.returns_rows else []

    def numbers(self, column: str, slug: str = "harbor") -> dict[date, Any]:
        """This column of the client's rows in client_metrics."""
        rows = self.sql(
            f"SELECT metric_date, {column} FROM client_metrics WHERE workspace = :slug ORDER BY 1",
            slug=slug,
        )
        return dict(tuple(row) for row in rows)

    def untrue_facts(self, slug: str, first: date, last: date) -> list[Any]:
        """The stored facts of these days that are not what happened."""
        stored = self.sql(
            "SELECT date, sent, interested FROM raw_bison_stats "
            "WHERE workspace = :slug AND date BETWEEN :first AND :last",
            slug=slug,
            first=first,
            last=last,
        )
        true = {it: self.truth.counts(slug, it) for it in days_between(first, last)}
        return [it for it in stored if it[1:] != (true[it[0]].sent, true[it[0]].interested)]
