"""From the bytes of a body to an `Event`. Nothing that arrives makes this raise."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from zoneinfo import ZoneInfo

from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.domain.events.event import Event, EventSource, EventStatus
from kpi_pipeline.domain.events.kinds import COUNTED, NOT_COUNTED, Kind

_LARGEST_ID = 2**63 - 1
# Clocks differ by some seconds; what lies further ahead is no time at which it happened.
_CLOCKS_DIFFER = timedelta(minutes=5)
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_LONGEST_URL = 200


class _MalformedError(ValueError):
    """Why a body can't be understood, as a clause; it quotes nothing of the body's values."""


def parse_event(
    body: bytes, *, instance: str, source: EventSource, arrived_at: datetime, tz: ZoneInfo
) -> Event:
    """Read a body that came in for `instance` at the aware instant `arrived_at`.

    Its business date, in `tz`, is that of the time at which it happened, where the body holds one
    that fits its type, else that of its arrival. A malformed body gives an INVALID event with the
    reason; one of a type that no number is made of, an IGNORED one.
    """
    digest = f"sha256={sha256(body).hexdigest()}"
    event_type: str | None = None
    workspace_id: int | None = None
    instance_url: str | None = None
    try:
        envelope, data = _parts(body)
        instance_url = _url_of(envelope)
        event_type = _type_of(envelope)
        workspace_id = _id_at(envelope, "workspace_id")
        if workspace_id is None:
            raise _MalformedError("event.workspace_id is no number of a workspace")
        kind = COUNTED.get(event_type)
        known_by = digest if kind is None else _known_by(kind, data)
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
        )
    happened_at = None if kind is None else _happened_at(event_type, kind, data, arrived_at)
    return Event(
        instance=instance,
        source=source,
        arrived_at=arrived_at,
        body=body,
        idempotency_key=f"{instance} {workspace_id} {event_type} {known_by}",
        status=EventStatus.IGNORED if kind is None else EventStatus.RECEIVED,
        business_date=business_date(happened_at or arrived_at, tz),
        reason=_why_ignored(event_type) if kind is None else None,
        event_type=event_type,
        bison_workspace_id=workspace_id,
        metric=None if kind is None else kind.metric,
        happened_at=happened_at,
        instance_url=instance_url,
    )


def _parts(body: bytes) -> tuple[Mapping[str, object], Mapping[str, object]]:
    """The envelope, and what it tells of."""
    try:
        # Replies hold raw control characters, which strict JSON forbids.
        content = json.loads(body.decode(), strict=False)
    except (ValueError, RecursionError):
        raise _MalformedError("it is no JSON in UTF-8") from None
    if not isinstance(content, dict):
        raise _MalformedError("it is no JSON object")
    envelope, data = content.get("event"), content.get("data")
    if not isinstance(envelope, dict):
        raise _MalformedError("it has no object `event`")
    return envelope, data if isinstance(data, dict) else {}


def _type_of(envelope: Mapping[str, object]) -> str:
    """The type in lower case: subscribed to in one case, sent in the other, and seen in both."""
    value = envelope.get("type")
    found = value.strip().lower() if isinstance(value, str) else ""
    if not re.fullmatch(r"[a-z0-9_.-]{1,64}", found, re.ASCII):
        raise _MalformedError("event.type is no name of a type")
    return found


def _known_by(kind: Kind, data: Mapping[str, object]) -> str:
    for group in kind.keys:
        found = [(path, _id_at(data, path)) for path in group]
        if all(number is not None for _, number in found):
            return " ".join(f"{path}={number}" for path, number in found)
    wanted = " or ".join(" and ".join(f"data.{path}" for path in group) for group in kind.keys)
    raise _MalformedError(f"it lacks {wanted}, by which such events are told apart")


def _id_at(content: Mapping[str, object], path: str) -> int | None:
    """The id at a path, as a number or in digits, or None."""
    value = _at(content, path)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}", value, re.ASCII):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST_ID:
        return value
    return None


def _happened_at(
    event_type: str, kind: Kind, data: Mapping[str, object], arrived_at: datetime
) -> datetime | None:
    """The time that the body gives, if it fits the type and can be true."""
    candidates = [] if kind.happened_at is None else [_at(data, kind.happened_at)]
    told = _at(data, "campaign_event.type")
    if isinstance(told, str) and told.strip().lower() == event_type:
        candidates.append(_at(data, "campaign_event.created_at"))
    for value in candidates:
        moment = _instant(value)
        if moment is not None and _EARLIEST <= moment <= arrived_at + _CLOCKS_DIFFER:
            return min(moment, arrived_at)
    return None


def _instant(value: object) -> datetime | None:
    """An ISO time with its offset, in UTC. Without one it can't be known which day it means."""
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


def _url_of(envelope: Mapping[str, object]) -> str | None:
    value = envelope.get("instance_url")
    if isinstance(value, str) and value.isascii() and value.isprintable():
        return value.strip()[:_LONGEST_URL] or None
    return None


def _why_ignored(event_type: str) -> str:
    if event_type in NOT_COUNTED:
        return f"No number is made of {event_type}."
    return f"The type {event_type} is not known to this version."
