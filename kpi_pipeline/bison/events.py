"""Reads the event feed: the last ten days' events of a workspace, as its webhooks carry them."""

import json
from collections.abc import Sequence
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
    """One event of the feed: its type, when Email Bison recorded it, and its row as JSON."""

    event_type: str
    recorded_at: datetime
    body: bytes


@dataclass(frozen=True)
class FeedPart:
    """The events that were read, in the order of the feed.

    `latest` is the latest recorded time of any row, also of another type. `complete` is False if
    the feed has more than was read, and `filtered` if it has rows of another type than was asked
    for. `undated` counts the rows that have no valid time; they are left out.
    """

    events: Sequence[FeedEvent]
    latest: datetime | None
    complete: bool
    filtered: bool
    undated: int


async def read_events(
    session: Session,
    event_types: Sequence[str],
    first: date,
    last: date,
    *,
    since: datetime,
    most_rows: int,
) -> FeedPart:
    """The events of these types that Email Bison recorded at `since` or later.

    Asked for are the days `first` to `last`, both included, and the first of the types: more of
    them make sense where an instance is known to ignore the filter by type. It may ignore any
    filter in silence, so each row is checked. The walk ends after `most_rows` rows, or at the rows
    before `since` if the list begins with the newest.

    Raises:
        MalformedAnswer: if the pages make no list.
        BisonError: if a call fails; its status is 404 where an instance has no feed.
    """
    params: dict[str, str | int] = {
        "type": event_types[0],
        "start_date": first.isoformat(),
        "end_date": last.isoformat(),
    }
    listing = Call("GET", EVENTS_PATH, params=params)
    walk = _Walk(event_types, since)
    complete = True
    try:
        async for row in every_row(session.call, listing, ListedEvents, first=_FIRST_PAGE):
            if walk.rows >= most_rows:
                complete = False
                break
            walk.add(row)
            if walk.newest_first and walk.old >= _OLD_ROWS:
                break
    except AnswerError as problem:
        raise session.malformed(listing, problem) from None
    return FeedPart(walk.events, walk.latest, complete, walk.filtered, walk.undated)


class _Walk:
    """What a walk along the rows has found so far; `old` rows in a row are before `since`."""

    def __init__(self, event_types: Sequence[str], since: datetime) -> None:
        self._event_types = event_types
        self._since = since
        self._before: datetime | None = None
        self.events: list[FeedEvent] = []
        self.latest: datetime | None = None
        self.newest_first = self.filtered = True
        self.rows = self.undated = self.old = 0

    def add(self, row: FeedRow) -> None:
        """Take the next row of the list."""
        self.rows += 1
        # A row without a type is asked for, as far as can be known.
        kind = row.event_type or self._event_types[0]
        if kind != self._event_types[0]:
            self.filtered = False
        at = row.recorded_at
        if at is None:
            self.undated += 1
            return
        self.latest = at if self.latest is None else max(at, self.latest)
        self.newest_first &= self._before is None or at <= self._before
        self._before = at
        self.old = self.old + 1 if at < self._since else 0
        if at >= self._since and kind in self._event_types:
            self.events.append(FeedEvent(kind, at, row.body()))
