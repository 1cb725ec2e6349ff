"""How moments, spans and lists are said to people, in alerts, checks and on the command line."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

_MOST_NAMED = 7


def listed(names: Sequence[str], most: int = _MOST_NAMED) -> str:
    """The first few names, and how many there are beside them."""
    shown = ", ".join(names[:most])
    left = len(names) - most
    return f"{shown}, … and {left} more" if left > 0 else shown


def moment(instant: datetime, timezone: ZoneInfo) -> str:
    """An instant as people of that time zone say it."""
    return f"{instant.astimezone(timezone):%a %d %b %Y, %H:%M %Z}"


def duration(passed: timedelta) -> str:
    """How long it was, in the two largest units."""
    minutes = int(passed.total_seconds()) // 60
    days, hours = minutes // 1440, minutes // 60 % 24
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def period(first: date, last: date) -> str:
    """A stretch of days, or the one day that it is."""
    return f"{first}" if first == last else f"{first} to {last}"


def counted(number: int, thing: str) -> str:
    """The number with its noun: 1 client, 2 clients."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
