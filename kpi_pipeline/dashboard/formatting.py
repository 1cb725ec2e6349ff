"""How the pages show numbers, dates and instants. Missing is a dash, and never 0."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from kpi_pipeline.domain.formatting import counted, duration
from kpi_pipeline.domain.outside_names import visible as visible  # pages import it from here

MISSING = "–"
_MINUS = "−"


def number(value: int | None) -> str:
    """A count with separators: 1,584."""
    return MISSING if value is None else f"{value:,}".replace("-", _MINUS)


def percent(value: Decimal | float | None, places: int = 0) -> str:
    """A percentage: 91 %."""
    return MISSING if value is None else f"{value:,.{places}f} %".replace("-", _MINUS)


def signed(value: int | None) -> str:
    """A difference with its sign: +6, −3."""
    return MISSING if value is None else f"{value:+,}".replace("-", _MINUS)


def signed_percent(value: Decimal | float | None) -> str:
    """A growth with its sign: +45 %."""
    if value is None:
        return MISSING
    return "0 %" if round(value) == 0 else f"{value:+,.0f} %".replace("-", _MINUS)


def long_date(day: date) -> str:
    """Friday, 27 November 2026."""
    return f"{day:%A}, {day.day} {day:%B %Y}"


def short_date(day: date) -> str:
    """27 Nov 2026."""
    return f"{day.day} {day:%b %Y}"


def month(day: date) -> str:
    """November 2026."""
    return f"{day:%B %Y}"


def clock(instant: datetime | None, zone: ZoneInfo) -> str:
    """A time of day in a zone: 13:40 CST."""
    return MISSING if instant is None else f"{instant.astimezone(zone):%H:%M %Z}"


def instant(at: datetime | None, zone: ZoneInfo) -> str:
    """A day and a time in a zone: Fri 27 Nov 2026, 13:40 CST."""
    if at is None:
        return MISSING
    local = at.astimezone(zone)
    return f"{local:%a} {local.day} {local:%b %Y, %H:%M %Z}"


def age(at: datetime | None, now: datetime) -> str:
    """How long ago: 12 s, 3 min, 10 h 5 min, 2 d 3 h."""
    if at is None:
        return MISSING
    passed = max(timedelta(0), now - at)
    return f"{int(passed.total_seconds())} s" if passed < timedelta(minutes=1) else duration(passed)


FILTERS: dict[str, Callable[..., Any]] = {
    it.__name__: it
    for it in (
        number,
        counted,
        percent,
        signed,
        signed_percent,
        long_date,
        short_date,
        month,
        clock,
        instant,
        age,
        visible,
    )
}
