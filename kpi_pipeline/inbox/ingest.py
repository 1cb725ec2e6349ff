"""Ingests events: stores each one first, then applies it to its client's rows."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.db.coordination.locks import lock_client, try_lock_clients
from kpi_pipeline.db.day_zone import require_day_zone
from kpi_pipeline.db.events.inbox import (
    Owner,
    Receipt,
    find_owners,
    lock_owners,
    read_receipts,
    read_statuses,
    store_events,
)
from kpi_pipeline.domain.events.event import Event, EventStatus
from kpi_pipeline.inbox.apply import apply_or_fail, apply_pending, is_of_the_rows

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext

_log = logging.getLogger(__name__)

# Longer than a sync holds a client's lock, and shorter than a sender waits for its answer.
_WAIT_SECONDS = 2.0
# For one lock; somebody may have locked rows without the client's lock.
_LOCK_TIMEOUT = "200ms"
_LIMIT_WAITING = text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
_LOCK_NOT_AVAILABLE = "55P03"

OwnedEvent = tuple[Event, Owner | None]


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


@dataclass(frozen=True)
class Ingested:
    """Stored events: a receipt for each, in their order; and the clients that were busy.

    Other work holds the lock of a busy client: its events are stored and not applied yet. With each
    goes what `apply_if_free` takes: further deliveries of events that were stored before.
    """

    receipts: list[Receipt]
    busy: Mapping[str, Sequence[OwnedEvent]]


def ingest(inbox: Inbox, events: Sequence[Event]) -> list[Receipt]:
    """Store the events and apply them to the rows of their clients; busy clients are waited for.

    Returns one receipt per event, in their order. An event that can't be applied, because its
    client is busy for longer than two seconds or computing the rows fails, is stored all the same,
    and applied later.

    Raises:
        KpiError: if the stored dates are days of another zone by now; nothing is stored then.
        sqlalchemy.exc.SQLAlchemyError: if the database is unreachable; what is not stored then has
            to be ingested again.
    """
    ingested = ingest_without_waiting(inbox, events)
    busy = dict(ingested.busy)
    if not busy:
        return ingested.receipts
    deadline = time.monotonic() + _WAIT_SECONDS
    while busy and time.monotonic() < deadline:
        # A client that is still busy goes to the end of the line.
        workspace = next(iter(busy))
        deliveries = busy.pop(workspace)
        if not apply_if_free(inbox, workspace, deliveries, wait=True):
            busy[workspace] = deliveries
    if busy:
        _log.warning("Events of %s are applied later: other work is busy with it.", ", ".join(busy))
    with inbox.engine.begin() as connection:
        return _with_statuses(connection, ingested.receipts)


def ingest_without_waiting(
    inbox: Inbox, events: Sequence[Event], *, busy: Collection[str] = ()
) -> Ingested:
    """As `ingest`, in one transaction that waits for no client; `busy` names some that are busy.

    A busy client delays no other: its events are stored, and left to `apply_if_free`.
    """
    checked = [of_its_instance(event, inbox.instance_urls) for event in events]
    # Only rows that can't be computed need a savepoint, and all is done again for them.
    for apply in (apply_or_fail, apply_pending) if inbox.realtime else ():
        try:
            with inbox.engine.begin() as connection:
                return _store_and_apply(connection, inbox, checked, busy, apply)
        except Exception as error:
            if isinstance(error, DBAPIError) and _is_lock_timeout(error):
                break
            if apply is apply_pending or not is_of_the_rows(error):
                raise
    with inbox.engine.begin() as connection:
        owned = _with(find_owners(connection, checked), checked)
        left = _counting(owned) if inbox.realtime else set()
        return Ingested(*_store_new(connection, inbox, owned, left))


def _store_and_apply(
    connection: Connection,
    inbox: Inbox,
    events: Sequence[Event],
    busy: Collection[str],
    apply: Callable[..., Collection[int]],
) -> Ingested:
    # Lock the clients first, and then their events: all code that locks both does.
    owners, free = lock_owners(connection, events, busy, _LOCK_TIMEOUT)
    owned = _with(owners, events)
    receipts, left = _store_new(connection, inbox, owned, _counting(owned) - free)
    # After a failed try the next one waits, so many webhooks at once don't use up the five tries.
    applied = apply(connection, free, inbox.day_zone, inbox.now(), due_only=True) if free else ()
    return Ingested(_with_statuses(connection, receipts, applied), left)


def apply_if_free(
    inbox: Inbox, workspace: str, deliveries: Sequence[OwnedEvent], *, wait: bool
) -> bool:
    """Count the further deliveries of stored events, and apply what is pending, for one client.

    Returns whether the client was free; nothing is done if it is busy. With `wait`, its lock is
    waited for, for a fifth of a second: who waits comes before those who only try.

    Raises:
        KpiError: if the stored dates are days of another zone by now.
        sqlalchemy.exc.SQLAlchemyError: if the database is unreachable.
    """
    try:
        with inbox.engine.begin() as connection:
            connection.execute(_LIMIT_WAITING)
            if wait:
                lock_client(connection, workspace)
            elif not try_lock_clients(connection, [workspace]):
                return False
            _store(connection, inbox, deliveries)
            apply_pending(connection, [workspace], inbox.day_zone, inbox.now(), due_only=True)
            return True
    except DBAPIError as error:
        if not _is_lock_timeout(error):
            raise
        return False


def _store_new(
    connection: Connection, inbox: Inbox, owned: Sequence[OwnedEvent], busy: Collection[str]
) -> tuple[list[Receipt], Mapping[str, Sequence[OwnedEvent]]]:
    """Store the events, apart from further deliveries for busy clients, which are returned.

    The work that holds a client's lock may have locked its stored events, too.
    """
    of_busy = [event.idempotency_key for event, owner in owned if owner and owner.workspace in busy]
    known = read_receipts(connection, of_busy) if of_busy else {}
    new = [it for it in owned if it[0].idempotency_key not in known]
    stored = iter(_store(connection, inbox, new))
    left: dict[str, list[OwnedEvent]] = {workspace: [] for workspace in busy}
    receipts = []
    for event, owner in owned:
        receipt = known.get(event.idempotency_key)
        if receipt is not None and owner is not None:
            left[owner.workspace].append((event, owner))
        receipts.append(receipt or next(stored))
    return receipts, left


def _store(connection: Connection, inbox: Inbox, owned: Sequence[OwnedEvent]) -> list[Receipt]:
    receipts = store_events(connection, owned)
    # Checked afterwards: storing waits while the stored dates are moved to another zone.
    require_day_zone(connection, inbox.day_zone)
    return receipts


def _counting(owned: Sequence[OwnedEvent]) -> set[str]:
    """The clients for whom some of the events count."""
    return {
        owner.workspace
        for event, owner in owned
        if owner is not None and owner.active and event.status is EventStatus.RECEIVED
    }


def _with_statuses(
    connection: Connection, receipts: Sequence[Receipt], applied: Collection[int] = ()
) -> list[Receipt]:
    """The receipts with the statuses of now; the events in `applied` are known to be applied."""
    received = {it.event_id for it in receipts if it.status is EventStatus.RECEIVED}
    statuses = dict.fromkeys(received.intersection(applied), EventStatus.APPLIED)
    statuses |= read_statuses(connection, received.difference(applied))
    return [replace(it, status=statuses.get(it.event_id, it.status)) for it in receipts]


def _is_lock_timeout(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE


def _with(owners: Mapping[tuple[str, int], Owner], events: Sequence[Event]) -> list[OwnedEvent]:
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
