"""Takes events in: each is stored before anything else is done with it, and then applied."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.db.inbox import Owner, Receipt, find_owners, read_statuses, store_events
from kpi_pipeline.db.locks import lock_clients
from kpi_pipeline.db.overlay import in_backoff
from kpi_pipeline.domain.events.event import Event, EventStatus
from kpi_pipeline.inbox.apply import apply_pending

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext

_log = logging.getLogger(__name__)

# Longer than a sync holds a client's rows, and shorter than a sender waits for its answer.
_MOST_PATIENCE = "2s"
_LOCK_NOT_AVAILABLE = "55P03"


@dataclass(frozen=True)
class Inbox:
    """Where events go. `instance_urls` has the configured address of each instance.

    With `realtime` off, events are stored, and left to Dagster's sensor to be applied.
    """

    engine: Engine
    timezone: ZoneInfo
    now: Callable[[], datetime]
    instance_urls: Mapping[str, str]
    realtime: bool = True


def inbox_of(app: "AppContext", *, realtime: bool) -> Inbox:
    """The inbox of an installation; without `realtime`, events are stored and applied later."""
    urls = {it.name: it.url for it in app.settings.bison_instances}
    return Inbox(app.engine, app.timezone, app.now, urls, realtime=realtime)


def ingest(inbox: Inbox, events: Sequence[Event]) -> list[Receipt]:
    """Store the events and work out the rows of their clients anew, in one transaction.

    Returns what became of each, in their order. What can't be applied, because the client's rows
    are held by somebody else for too long or because working them out fails, is stored all the
    same, and tried again later.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: if the database can't be reached; nothing is stored then.
    """
    checked = [of_its_instance(event, inbox.instance_urls) for event in events]
    if inbox.realtime:
        try:
            with inbox.engine.begin() as connection:
                return _store_and_apply(connection, inbox, checked)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
            _log.warning("Events are stored and applied later: their client's rows are held.")
    with inbox.engine.begin() as connection:
        return store_events(connection, _with_owners(connection, checked))


def _store_and_apply(
    connection: Connection, inbox: Inbox, events: Sequence[Event]
) -> list[Receipt]:
    owned = _with_owners(connection, events)
    counting = {
        owner.workspace
        for event, owner in owned
        if owner is not None and owner.active and event.status is EventStatus.RECEIVED
    }
    connection.execute(text(f"SET LOCAL lock_timeout = '{_MOST_PATIENCE}'"))
    # The clients first, in one order, and then their events: so does everybody who takes both.
    lock_clients(connection, counting)
    now = inbox.now()
    # Where the last try failed, the next has its time: many webhooks at once are not many tries.
    counting -= in_backoff(connection, counting, now)
    receipts = store_events(connection, owned)
    apply_pending(connection, counting, inbox.timezone, now)
    waited = [it.event_id for it in receipts if it.status is EventStatus.RECEIVED]
    statuses = read_statuses(connection, waited)
    return [replace(it, status=statuses.get(it.event_id, it.status)) for it in receipts]


def _with_owners(
    connection: Connection, events: Sequence[Event]
) -> list[tuple[Event, Owner | None]]:
    owners = find_owners(connection, events)
    return [
        (event, owners.get((event.instance, event.bison_workspace_id or 0))) for event in events
    ]


def of_its_instance(event: Event, urls: Mapping[str, str]) -> Event:
    """The event, or an invalid one where its body names another of the instances.

    Ids of workspaces repeat between instances: its numbers would be a stranger's.
    """
    named = instances_at(event.instance_url, urls)
    if not named or event.instance in named:
        return event
    return replace(
        event,
        status=EventStatus.INVALID,
        metric=None,
        idempotency_key=f"{event.instance} misdirected {event.idempotency_key}",
        reason=f"It tells of instance {', '.join(sorted(named))}, and came in by the address of "
        f"{event.instance}: give the webhook the address of its own instance.",
    )


def instances_at(url: str | None, urls: Mapping[str, str]) -> set[str]:
    """The instances whose configured address has the same host as `url`; none for no address."""
    told = _host(url)
    return {name for name, known in urls.items() if _host(known) == told} if told else set()


def _host(url: str | None) -> str:
    try:
        return urlsplit(url or "").netloc.lower()
    except ValueError:
        return ""
