"""Ingests events: stores each one first, then applies it to its client's rows."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.db.day_zone import require_day_zone
from kpi_pipeline.db.inbox import Owner, Receipt, find_owners, read_statuses, store_events
from kpi_pipeline.db.locks import lock_clients
from kpi_pipeline.db.overlay import in_backoff
from kpi_pipeline.domain.events.event import Event, EventStatus
from kpi_pipeline.inbox.apply import apply_pending

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext

_log = logging.getLogger(__name__)

# Longer than a sync holds a client's lock, and shorter than a sender waits for its answer.
_LOCK_TIMEOUT = "2s"
_LOCK_NOT_AVAILABLE = "55P03"


@dataclass(frozen=True)
class Inbox:
    """What ingesting needs. `instance_urls` has the configured address of each instance.

    Events are dated by the days of `day_zone`, which are Email Bison's. With `realtime` off, events
    are only stored, and Dagster's sensor applies them.
    """

    engine: Engine
    day_zone: ZoneInfo
    now: Callable[[], datetime]
    instance_urls: Mapping[str, str]
    realtime: bool = True


def inbox_of(app: "AppContext", *, realtime: bool) -> Inbox:
    """The inbox of an AppContext; without `realtime`, events are only stored, and applied later."""
    urls = {it.name: it.url for it in app.settings.bison_instances}
    return Inbox(app.engine, app.day_zone, app.now, urls, realtime=realtime)


def ingest(inbox: Inbox, events: Sequence[Event]) -> list[Receipt]:
    """Store the events and recompute the rows of their clients, in one transaction.

    Returns one receipt per event, in their order. An event that can't be applied, because the
    client's lock is held for too long or computing its rows fails, is stored all the same, and
    applied later.

    Raises:
        KpiError: if the stored dates are days of another zone by now; nothing is stored then.
        sqlalchemy.exc.SQLAlchemyError: if the database is unreachable; nothing is stored then.
    """
    checked = [of_its_instance(event, inbox.instance_urls) for event in events]
    if inbox.realtime:
        try:
            with inbox.engine.begin() as connection:
                return _store_and_apply(connection, inbox, checked)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
            _log.warning("Events are stored and applied later: their client's lock is held.")
    with inbox.engine.begin() as connection:
        return _store(connection, inbox, _with_owners(connection, checked))


def _store_and_apply(
    connection: Connection, inbox: Inbox, events: Sequence[Event]
) -> list[Receipt]:
    owned = _with_owners(connection, events)
    counting = {
        owner.workspace
        for event, owner in owned
        if owner is not None and owner.active and event.status is EventStatus.RECEIVED
    }
    connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
    # Lock the clients first, in one order, and then their events: all code that locks both does.
    lock_clients(connection, counting)
    now = inbox.now()
    # After a failed try the next one waits, so many webhooks at once don't use up the five tries.
    counting -= in_backoff(connection, counting, now)
    receipts = _store(connection, inbox, owned)
    apply_pending(connection, counting, inbox.day_zone, now)
    pending = [it.event_id for it in receipts if it.status is EventStatus.RECEIVED]
    statuses = read_statuses(connection, pending)
    return [replace(it, status=statuses.get(it.event_id, it.status)) for it in receipts]


def _store(
    connection: Connection, inbox: Inbox, owned: Sequence[tuple[Event, Owner | None]]
) -> list[Receipt]:
    receipts = store_events(connection, owned)
    # Checked afterwards: storing waits while the stored dates are moved to another zone.
    require_day_zone(connection, inbox.day_zone)
    return receipts


def _with_owners(
    connection: Connection, events: Sequence[Event]
) -> list[tuple[Event, Owner | None]]:
    owners = find_owners(connection, events)
    return [
        (event, owners.get((event.instance, event.bison_workspace_id or 0))) for event in events
    ]


def of_its_instance(event: Event, urls: Mapping[str, str]) -> Event:
    """The event, or an INVALID one if its body names another of the instances.

    Workspace ids repeat between instances, so it would count for an unrelated client.
    """
    named = instances_at(event.instance_url, urls)
    if not named or event.instance in named:
        return event
    return replace(
        event,
        status=EventStatus.INVALID,
        metric=None,
        idempotency_key=f"{event.instance} misdirected {event.idempotency_key}",
        reason=f"It is an event of instance {', '.join(sorted(named))}, and came in at the address "
        f"of {event.instance}: give the webhook the address of its own instance.",
    )


def instances_at(url: str | None, urls: Mapping[str, str]) -> set[str]:
    """The instances whose configured address has the same host as `url`; none without a host."""
    host = _host(url)
    return {name for name, known in urls.items() if _host(known) == host} if host else set()


def _host(url: str | None) -> str:
    try:
        return urlsplit(url or "").netloc.lower()
    except ValueError:
        return ""
