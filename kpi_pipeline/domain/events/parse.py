"""Parses the bytes of a body into an `Event`. No body makes it raise."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.domain.events.event import Event, EventSource, EventStatus
from kpi_pipeline.domain.events.kinds import (
    COUNTED,
    LARGEST_SAMPLE_ID,
    NOT_COUNTED,
    SAMPLE_WORKSPACE,
    TEST_MARKER,
    Kind,
    key_of_test,
)

_LARGEST_ID = 2**63 - 1
# Clocks differ by some seconds; a time further ahead of the arrival is not believed.
_CLOCKS_DIFFER = timedelta(minutes=5)
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_LONGEST_URL = 200
_TIMES = ("campaign_event.created_at", "scheduled_email.sent_at", "reply.date_received")
_SAMPLE_IDS = ("lead.id", "campaign.id", "scheduled_email.id", "sender_email.id")
# Deliveries are repeated for 24 hours, and the feed lists events of ten days.
_LONGEST_ON_ITS_WAY = timedelta(days=10)
# Nobody marks a reply as interested that is older.
_LONGEST_UNMARKED = timedelta(days=180)


class _MalformedError(ValueError):
    """Why a body can't be understood, as a clause that quotes no value of the body."""


def parse_event(
    body: bytes,
    *,
    instance: str,
    source: EventSource,
    arrived_at: datetime,
    tz: ZoneInfo,
    test_name: str | None = None,
) -> Event:
    """Parse a body that arrived for `instance` at the aware instant `arrived_at`.

    The business date, in `tz`, the zone of Email Bison's days, is that of the time of the event, if
    the body has one that fits the type, else that of the arrival. A malformed body gives an INVALID
    event with the reason, a type that is not counted an IGNORED one, and a test event a TEST: one
    whose URL had a `test_name` (see `TEST_MARKER`), or that shows to be a sample of Email Bison's.
    """
    digest = f"sha256={sha256(body).hexdigest()}"
    event_type: str | None = None
    workspace_id: int | None = None
    instance_url: str | None = None
    feed = _FeedRow()
    try:
        envelope, data, feed = _parse_body(body, arrived_at)
        instance_url = _parse_url(envelope)
        event_type = _parse_type(envelope)
        workspace_id = _parse_id(envelope, "workspace_id")
        if workspace_id is None:
            raise _MalformedError("event.workspace_id is no id of a workspace")
        kind = COUNTED.get(event_type)
        happened_at = feed.recorded_at
        if kind is not None and happened_at is None:
            happened_at = _happened_at(event_type, kind, data, arrived_at)
        reason = None
        if test_name is not None:
            reason = f"A test event: the URL of its webhook has {TEST_MARKER}."
        elif workspace_id == SAMPLE_WORKSPACE and _is_sample(data, source, happened_at, arrived_at):
            reason = "A test event: its ids or times are those of Email Bison's samples."
        identity = digest if kind is None or reason is not None else _identity(kind, data)
    except _MalformedError as error:
        return Event(
            instance=instance,
            source=source,
            arrived_at=arrived_at,
            body=body,
            idempotency_key=f"{instance} invalid {digest}",
            status=EventStatus.INVALID,
            business_date=business_date(arrived_at, tz),
            reason=f"The body can't be understood: {error}.",
            event_type=event_type,
            bison_workspace_id=workspace_id,
            instance_url=instance_url,
            feed_uuid=feed.uuid,
            recorded_at=feed.recorded_at,
        )
    status = EventStatus.RECEIVED
    key = f"{instance} {workspace_id} {event_type} {identity}"
    if reason is not None:
        named = re.fullmatch(r"[A-Za-z0-9_-]{1,64}", test_name or "")
        key = key_of_test(instance, named[0] if named else digest)
        status, kind = EventStatus.TEST, None
    elif kind is None:
        status, reason = EventStatus.IGNORED, _why_ignored(event_type)
    if kind is None:
        happened_at = None
    return Event(
        instance=instance,
        source=source,
        arrived_at=arrived_at,
        body=body,
        idempotency_key=key,
        status=status,
        business_date=business_date(happened_at or arrived_at, tz),
        reason=reason,
        event_type=event_type,
        bison_workspace_id=workspace_id,
        metric=None if kind is None else kind.metric,
        happened_at=happened_at,
        instance_url=instance_url,
        feed_uuid=feed.uuid,
        recorded_at=feed.recorded_at,
    )


def load_json(body: bytes) -> Any:
    """The content of a body in JSON, in UTF-8 or what a byte order mark says.

    Raises:
        ValueError: if it is not JSON.
        RecursionError: if it is nested too deeply.
    """
    # Replies hold raw control characters, which strict JSON forbids.
    return json.loads(body.decode(json.detect_encoding(body)), strict=False)


@dataclass(frozen=True)
class _FeedRow:
    """What a row of the feed says of its event; nothing in any other body.

    The time at which Email Bison recorded an event is the best one known of when it happened: facts
    hold what was recorded before they were requested.
    """

    uuid: str | None = None
    recorded_at: datetime | None = None


def _parse_body(
    body: bytes, arrived_at: datetime
) -> tuple[Mapping[str, object], Mapping[str, object], _FeedRow]:
    """The members `event` and `data`, and the rest of the body if it is a row of the feed.

    `GET /api/events` wraps the body of the webhook as `payload`.
    """
    try:
        content = load_json(body)
    except (ValueError, RecursionError):
        raise _MalformedError("it is no JSON in UTF-8") from None
    if not isinstance(content, dict):
        raise _MalformedError("it is no JSON object")
    feed, payload = _FeedRow(), content.get("payload")
    if "event" not in content and isinstance(payload, dict):
        feed = _FeedRow(
            _parse_uuid(content.get("uuid")), _past(content.get("created_at"), arrived_at)
        )
        content = payload
    envelope, data = content.get("event"), content.get("data")
    if not isinstance(envelope, dict):
        raise _MalformedError("it has no object `event`")
    return envelope, data if isinstance(data, dict) else {}, feed


def _parse_uuid(value: object) -> str | None:
    found = value.strip().lower() if isinstance(value, str) else ""
    return found if re.fullmatch(r"[0-9a-z-]{1,64}", found, re.ASCII) else None


def _parse_type(envelope: Mapping[str, object]) -> str:
    """The type in lower case: the vendor writes types in both cases."""
    value = envelope.get("type")
    found = value.strip().lower() if isinstance(value, str) else ""
    if not re.fullmatch(r"[a-z0-9_.-]{1,64}", found, re.ASCII):
        raise _MalformedError("event.type is no type name")
    return found


def _identity(kind: Kind, data: Mapping[str, object]) -> str:
    for group in kind.keys:
        found = [(path, _parse_id(data, path)) for path in group]
        if all(number is not None for _, number in found):
            return " ".join(f"{path}={number}" for path, number in found)
    wanted = " or ".join(" and ".join(f"data.{path}" for path in group) for group in kind.keys)
    raise _MalformedError(f"it lacks {wanted}, which identifies such an event")


def _parse_id(content: Mapping[str, object], path: str) -> int | None:
    """The id at a path, which may be a number or a string of digits, or None."""
    value = _at(content, path)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}", value, re.ASCII):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST_ID:
        return value
    return None


def _happened_at(
    event_type: str, kind: Kind, data: Mapping[str, object], arrived_at: datetime
) -> datetime | None:
    """The time in the body of a webhook, if it fits the type and is plausible."""
    candidates = []
    named = _at(data, "campaign_event.type")
    if isinstance(named, str) and named.strip().lower() in {event_type, *kind.recorded_as}:
        candidates.append(_at(data, "campaign_event.created_at"))
    if kind.happened_at is not None:
        candidates.append(_at(data, kind.happened_at))
    for value in candidates:
        if (moment := _past(value, arrived_at)) is not None:
            return moment
    return None


def _is_sample(
    data: Mapping[str, object],
    source: EventSource,
    happened_at: datetime | None,
    arrived_at: datetime,
) -> bool:
    """Whether an event of workspace 1 is a sample, and not of a real workspace with that id.

    Samples have ids of one digit and times that are years old. A real event arrives within days, so
    one with a recent time is real, whatever its ids. Without one, small ids make it a sample; so
    does, in a webhook, an old time of the event itself, or nothing but times of half a year ago. A
    file may hold events of any age. And the time of the reply alone may well be that of last month:
    a person can mark an old reply as interested.
    """
    named = (_past(_at(data, path), arrived_at) for path in _TIMES)
    latest = max((it for it in (happened_at, *named) if it is not None), default=None)
    if latest is not None:
        age = arrived_at - latest
        if age <= _LONGEST_ON_ITS_WAY:
            return False
        longest = _LONGEST_UNMARKED if happened_at is None else _LONGEST_ON_ITS_WAY
        if source is EventSource.WEBHOOK and age > longest:
            return True
    ids = [number for path in _SAMPLE_IDS if (number := _parse_id(data, path)) is not None]
    return bool(ids) and max(ids) <= LARGEST_SAMPLE_ID


def _past(value: object, arrived_at: datetime) -> datetime | None:
    """A plausible time, at the latest that of the arrival; or None."""
    moment = _parse_instant(value)
    if moment is not None and _EARLIEST <= moment <= arrived_at + _CLOCKS_DIFFER:
        return min(moment, arrived_at)
    return None


def _parse_instant(value: object) -> datetime | None:
    """An ISO time with an offset, in UTC, or None: without one, its day is not known."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        return moment.astimezone(UTC) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _at(content: Mapping[str, object], path: str) -> object:
    value: object = content
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _parse_url(envelope: Mapping[str, object]) -> str | None:
    value = envelope.get("instance_url")
    if isinstance(value, str) and value.isascii() and value.isprintable():
        return value.strip()[:_LONGEST_URL] or None
    return None


def _why_ignored(event_type: str) -> str:
    if event_type in NOT_COUNTED:
        return f"Events of the type {event_type} are not counted."
    return f"The event type {event_type} is not known to this version."
