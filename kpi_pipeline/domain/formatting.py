"""Text for people in alerts, checks and commands: instants, durations, periods, counts, lists."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

_MOST_NAMED = 7


def listed(names: Sequence[str], most: int = _MOST_NAMED) -> str:
    """The first `most` names, and how many more there are."""
    shown = ", ".join(names[:most])
    left = len(names) - most
    return f"{shown} and {left} more" if left > 0 else shown


def joined(names: Sequence[str]) -> str:
    """All names, as in a sentence: acme, birch and cedar."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def moment(instant: datetime, timezone: ZoneInfo) -> str:
    """An instant in that time zone, with its weekday."""
    return f"{instant.astimezone(timezone):%a %d %b %Y, %H:%M %Z}"


def whose_day(day_zone: ZoneInfo, timezone: ZoneInfo) -> str:
    """What follows a date that stands among times of `timezone`: its own zone, if that differs."""
    return "" if day_zone.key == timezone.key else f" (Email Bison's day, {day_zone.key})"


def duration(passed: timedelta) -> str:
    """A duration in its two largest units; seconds are left out."""
    minutes = int(passed.total_seconds()) // 60
    days, hours = minutes // 1440, minutes // 60 % 24
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def period(first: date, last: date) -> str:
    """A range of days, or its one day."""
    return f"{first}" if first == last else f"{first} to {last}"


def counted(number: int, thing: str) -> str:
    """The number with its noun: 1 client, 2 clients, 2 replies."""
    in_ies = thing[-1] == "y" and thing[-2] not in "aeou"
    several = f"{thing[:-1]}ies" if in_ies else f"{thing}s"
    return f"{number:,} {thing if number == 1 else several}"


def as_sentence(clause: str) -> str:
    """The clause with a capital letter and a full stop."""
    return f"{clause[:1].upper()}{clause[1:]}."
