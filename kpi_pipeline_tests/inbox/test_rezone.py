"""`kpi recompute --adopt-timezone`: all stored dates move to another zone, or none."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, text

from kpi_pipeline.db.coordination.locks import lock_client
from kpi_pipeline.db.day_zone import ensure_day_zone, require_day_zone, stored_day_zone
from kpi_pipeline.db.events.inbox import Receipt
from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.domain.events.event import Event
from kpi_pipeline.errors import KpiError
from kpi_pipeline.inbox.apply import apply_pending
from kpi_pipeline.inbox.ingest import Inbox, ingest
from kpi_pipeline.inbox.replay import replay
from kpi_pipeline.inbox.rezone import Adopted, adopt_day_zone
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.db.stocked import AS_OF, stock_facts
from kpi_pipeline_tests.db.support import until_somebody_waits
from kpi_pipeline_tests.domain.bodies import email_sent, lead, parsed
from kpi_pipeline_tests.inbox.support import Clients

CHICAGO, UTC_ZONE, TOKYO = (ZoneInfo(it) for it in ("America/Chicago", "UTC", "Asia/Tokyo"))
FIRST, LAST = date(2026, 2, 20), date(2026, 3, 18)
# Mails of the last weeks: at nine hours of each day, and around a month's end.
SENT = [datetime(2026, 2, 27, tzinfo=UTC) + timedelta(hours=hour) for hour in range(2, 400, 9)]
NOW = AS_OF + timedelta(hours=1)
# Columns that say when and why a row was written.
_WRITTEN = ("id", "source", "updated_at")


def inbox(clients: Clients, zone: ZoneInfo, now: datetime = NOW) -> Inbox:
    return Inbox(clients.engine, zone, lambda: now, clients.urls)


def dated(event: Event, zone: ZoneInfo) -> Event:
    """The event as it is parsed where days are those of `zone`."""
    return parsed(event.body, event.arrived_at, tz=zone)


def events() -> list[Event]:
    """One for each of SENT, and leads that have no time but that of their arrival."""
    mails = [email_sent(number, at, at) for number, at in enumerate(SENT, start=1)]
    return [*mails, *(lead(number, arrived_at=at) for number, at in enumerate(SENT, start=1))]


def filled(clients: Clients, zone: ZoneInfo) -> None:
    """Facts of the early morning of each day, rows, and events, under this zone."""
    ensure_day_zone(clients.engine, Settings(timezone=zone))
    for workspace in ("harbor", "quay"):
        with clients.engine.begin() as connection:
            lock_client(connection, workspace)
            for day in days_between(FIRST, LAST):
                early = datetime(day.year, day.month, day.day, 6, tzinfo=UTC)
                stock_facts(connection, workspace, day, day, as_of=early)
            dates = days_between(date(2026, 2, 25), LAST)
            update_rows(
                connection,
                [workspace],
                since=FIRST,
                until=LAST,
                zone=zone,
                source="sync",
                dates=dates,
            )
    ingest(inbox(clients, zone), [dated(event, zone) for event in events()])


def stored(clients: Clients) -> dict[str, list[dict[str, Any]]]:
    """The content of all tables that hold dates, without what says when a row was written."""
    orders = {
        "raw_bison_stats": "workspace, date",
        "kpi_projections": "workspace, metric_date",
        "client_metrics": "workspace, metric_date",
        "webhook_events": "idempotency_key",
    }
    with clients.engine.connect() as connection:
        return {
            table: [
                {name: value for name, value in row.items() if name not in _WRITTEN}
                for row in connection.execute(
                    text(f"SELECT * FROM {table} ORDER BY {order}")
                ).mappings()
            ]
            for table, order in orders.items()
        }


def emptied(clients: Clients) -> None:
    clients.sql(
        "TRUNCATE webhook_events, client_metrics, kpi_projections, raw_bison_stats, day_zone"
    )


def remembered(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return stored_day_zone(connection)


@pytest.mark.parametrize(
    ("before", "after"), [(CHICAGO, UTC_ZONE), (UTC_ZONE, CHICAGO), (TOKYO, CHICAGO)]
)
def test_afterwards_all_is_as_if_the_zone_had_always_been_that_one(
    clients: Clients, before: ZoneInfo, after: ZoneInfo
) -> None:
    filled(clients, after)
    right = stored(clients)
    emptied(clients)
    filled(clients, before)
    # What had no effect on one row under this zone may have made one: such rows stay.
    extra = {(it["workspace"], it["metric_date"]) for it in stored(clients)["client_metrics"]}
    extra -= {(it["workspace"], it["metric_date"]) for it in right["client_metrics"]}
    assert stored(clients) != right

    seen: list[tuple[int, int]] = []
    done = adopt_day_zone(clients.engine, after, lambda *it: seen.append(it))

    now = stored(clients)
    for table in ("kpi_projections", "client_metrics"):
        now[table] = [it for it in now[table] if (it["workspace"], it["metric_date"]) not in extra]
    assert now == right
    assert remembered(clients.engine) == after.key
    assert (done.before, seen) == (before.key, [(2, 2)])
    assert done.moved > 0
    assert done.rows >= len(right["kpi_projections"])
    assert set(clients.sql("SELECT DISTINCT source FROM client_metrics")) == {("recompute",)}


def test_events_without_a_client_or_a_date_are_right_as_well(clients: Clients) -> None:
    at = datetime(2026, 3, 18, 2, 0, tzinfo=UTC)
    ingest(inbox(clients, CHICAGO, at), [lead(7, workspace_id=999, arrived_at=at)])
    assert clients.events("status", "business_date") == [("unmatched", date(2026, 3, 17))]
    clients.sql("SELECT increment_metric('Harbor', 'positive_replies_mtd', 1)")
    adopt_day_zone(clients.engine, UTC_ZONE)
    assert clients.events("business_date") == [date(2026, 3, 18), None]


def test_repeating_it_changes_nothing(clients: Clients) -> None:
    filled(clients, CHICAGO)
    adopt_day_zone(clients.engine, UTC_ZONE)
    right = stored(clients)
    again = adopt_day_zone(clients.engine, UTC_ZONE)
    assert again == Adopted("UTC", 0, len(right["kpi_projections"]))
    assert stored(clients) == right


def test_an_interruption_leaves_everything_as_it_was(clients: Clients) -> None:
    filled(clients, CHICAGO)
    right = stored(clients)

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adopt_day_zone(clients.engine, UTC_ZONE, interrupt)
    assert (stored(clients), remembered(clients.engine)) == (right, "America/Chicago")


@pytest.mark.parametrize("realtime", [True, False])
def test_a_gateway_that_still_works_with_the_old_zone_stores_nothing(
    clients: Clients, realtime: bool
) -> None:
    """Its event waits for the end of the move, and is refused: the sender sends it again."""
    filled(clients, CHICAGO)
    old = Inbox(clients.engine, CHICAGO, lambda: NOW, clients.urls, realtime=realtime)
    waiting: list[Future[Sequence[Receipt]]] = []
    with ThreadPoolExecutor(1) as thread:

        def deliver(*_: int) -> None:
            waiting.append(thread.submit(ingest, old, [lead(999, arrived_at=NOW)]))
            asyncio.run(until_somebody_waits(clients.engine))

        adopt_day_zone(clients.engine, UTC_ZONE, deliver)
        with pytest.raises(KpiError, match="still works with America/Chicago"):
            waiting[0].result(timeout=30)
    assert len(clients.events("id")) == len(events())
    with pytest.raises(KpiError, match="still works with America/Chicago"):
        replay(old)


def test_events_wait_without_a_failed_try_while_a_process_has_the_old_zone(
    clients: Clients,
) -> None:
    filled(clients, CHICAGO)
    clients.sql("UPDATE webhook_events SET status = 'received'")
    adopt_day_zone(clients.engine, UTC_ZONE)
    with clients.engine.begin() as connection:
        lock_client(connection, "harbor")
        with pytest.raises(KpiError, match="still works with America/Chicago"):
            apply_pending(connection, ["harbor"], CHICAGO, NOW)
    assert set(clients.events("status", "tries")) == {("received", 0)}


def test_rows_that_are_being_computed_under_the_old_zone_are_computed_again(
    clients: Clients,
) -> None:
    filled(clients, UTC_ZONE)
    adopt_day_zone(clients.engine, CHICAGO)
    right = stored(clients)
    adopt_day_zone(clients.engine, UTC_ZONE)
    with ThreadPoolExecutor(1) as thread, clients.engine.begin() as connection:
        lock_client(connection, "harbor")
        require_day_zone(connection, UTC_ZONE)
        move = thread.submit(adopt_day_zone, clients.engine, CHICAGO)
        asyncio.run(until_somebody_waits(clients.engine))
        update_rows(connection, ["harbor"], since=FIRST, zone=UTC_ZONE, source="sync")
        connection.commit()
        move.result(timeout=30)
    assert stored(clients) == right
