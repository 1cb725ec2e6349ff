"""Reads the event feed: the last ten days' events of a workspace, as its webhooks carry them."""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from kpi_pipeline.bison.answers import AnswerError
from kpi_pipeline.bison.calls import Call
from kpi_pipeline.bison.pages import Entry, Listed, every_row
from kpi_pipeline.bison.reader import Session

EVENTS_PATH = "/api/events"
# So many rows in a row that are older than what is asked for: a list that begins with the newest
# has no others.
_OLD_ROWS = 15
_FIRST_PAGE = {"pagination_type": "cursor"}


class FeedRow(Entry):
    """A row of the feed. Only the payload is read further, where bodies of webhooks are read."""

    documented = frozenset({"webhook_deliveries", "updated_at"})

    id: int | str | None = None
    uuid: str | None = None
    created_at: Any = None
    payload: Any = None

    @property
    def identity(self) -> object:
        """The id, or else the uuid."""
        return self.id if self.id is not None else self.uuid

    @property
    def recorded_at(self) -> datetime | None:
        """When Email Bison recorded the event; None without a time of a known zone."""
        try:
            moment = datetime.fromisoformat(str(self.created_at).strip())
            return moment.astimezone(UTC) if moment.tzinfo is not None else None
        except (ValueError, OverflowError):
            return None

    @property
    def event_type(self) -> str | None:
        """The type in lower case; None if the payload names none."""
        event = self.payload.get("event") if isinstance(self.payload, dict) else None
        named = event.get("type") if isinstance(event, dict) else None
        return named.strip().lower() if isinstance(named, str) else None

    def body(self) -> bytes:
        """The row as JSON, without the members that change from one reading to the next."""
        row = {
            "id": self.id,
            "uuid": self.uuid,
            "payload": self.payload,
            "created_at": self.created_at,
        }
        return json.dumps(row, separators=(",", ":")).encode()


class ListedEvents(Listed[FeedRow]):
    """An answer of `GET /api/events`."""


@dataclass(frozen=True)
class FeedEvent:
    """One event of the feed: when Email Bison recorded it, and its row as JSON."""

    recorded_at: datetime
    body: bytes


@dataclass(frozen=True)
class FeedPart:
    """The events of one type that were read, in the order of the feed.

    `complete` is False if the feed has more than was read. `undated` counts the rows that have no
    valid time; they are left out.
    """

    events: list[FeedEvent]
    complete: bool
    undated: int


async def read_events(
    session: Session,
    event_type: str,
    first: date,
    last: date,
    *,
    since: datetime,
    most_rows: int,
) -> FeedPart:
    """The events of one type that Email Bison recorded at `since` or later.

    The days `first` to `last`, both included, are what is asked for. An instance may ignore any of
    these filters in silence, so each row is checked. The walk ends after `most_rows` rows, or at
    the rows before `since` if the list begins with the newest.

    Raises:
        MalformedAnswer: if the pages make no list.
        BisonError: if a call fails; its status is 404 where an instance has no feed.
    """
    params: dict[str, str | int] = {
        "type": event_type,
        "start_date": first.isoformat(),
        "end_date": last.isoformat(),
    }
    listing = Call("GET", EVENTS_PATH, params=params)
    events: list[FeedEvent] = []
    rows = undated = old = 0
    newest_first = True
    before: datetime | None = None
    try:
        async for row in every_row(session.call, listing, ListedEvents, first=_FIRST_PAGE):
            if rows >= most_rows:
                return FeedPart(events, False, undated)
            rows += 1
            at = row.recorded_at
            if at is None:
                undated += 1
                continue
            newest_first = newest_first and (before is None or at <= before)
            before = at
            old = old + 1 if at < since else 0
            if at >= since and row.event_type in (event_type, None):
                events.append(FeedEvent(at, row.body()))
            if newest_first and old >= _OLD_ROWS:
                break
    except AnswerError as problem:
        raise session.malformed(listing, problem) from None
    return FeedPart(events, True, undated)
