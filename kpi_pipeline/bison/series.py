"""The daily series: seven labelled lines of [day, count] become one row of counts a day."""

import re
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, ValidationError

from kpi_pipeline.bison.answers import AnswerError, Count, WireAnswer, fit, report_unknown_fields
from kpi_pipeline.bison.model import DayCounts

# The labels of the vendor's document. They are matched by name: their order is not promised.
_NUMBERS = ("Sent", "Replied", "Interested", "Bounced", "Unsubscribed")
# No number is computed from these: they may be missing, or leave out days.
_OPENS = ("Total Opens", "Unique Opens")


def _day(value: object) -> date:
    # date.fromisoformat alone would also take 20250503 and 2025-W18-6.
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        return date.fromisoformat(value)
    raise ValueError("it is no day of the form YYYY-MM-DD")


def _lines_to_read(lines: object) -> object:
    """Leave out, and report, lines with unknown labels, and lines of opens that can't be read."""
    if not isinstance(lines, list):
        return lines
    left_out = [_left_out(line) for line in lines]
    report_unknown_fields(what for what in left_out if what is not None)
    return [line for line, what in zip(lines, left_out, strict=True) if what is None]


def _left_out(line: object) -> str | None:
    """How a line that is left out is reported; None for one to read."""
    label = line.get("label") if isinstance(line, dict) else None
    if not isinstance(label, str):
        return None
    if label not in _NUMBERS + _OPENS:
        return f"data[].label {label!r}"
    if label in _OPENS:
        try:
            _Line.model_validate(line)
        except ValidationError:
            return f"data[].dates of {label!r} in another shape"
    return None


class _Line(WireAnswer):
    documented = frozenset({"color"})

    label: str
    dates: list[tuple[Annotated[date, BeforeValidator(_day)], Count]]


class _SeriesAnswer(WireAnswer):
    data: Annotated[list[_Line], BeforeValidator(_lines_to_read)]


class SeriesDays(NamedTuple):
    """The counts of each day of one answer's period; and whether the answer lists any day."""

    days: dict[date, DayCounts]
    lists_days: bool


def days_of(body: object, first: date, last: date) -> SeriesDays:
    """The counts of every day from `first` to `last`, both included.

    A day that no label lists is a day of zeros: the answer is whole, and nothing happened. The day
    before `first`, which an instance may list whose days begin in another time zone, is left out
    and reported, if the answer lists all days of the period as well.

    Raises:
        AnswerError: if the shape is wrong, a label that feeds a number is missing, a label comes
            twice, a day lies outside the period or is repeated, or only some of the labels list a
            day.
    """
    counts = _by_label(fit(_SeriesAnswer, body).data)
    if missing := set(_NUMBERS) - counts.keys():
        raise AnswerError(f"answered without {_listed(missing)}")
    period = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    _leave_out_day_before(counts, period)
    listed = counts["Sent"].keys()
    for label, line in counts.items():
        if outside := [day for day in line if not first <= day <= last]:
            raise AnswerError(
                f"answered with {outside[0]} under {label!r}, outside {first} to {last}"
            )
        if uneven := line.keys() - listed or (label in _NUMBERS and listed - line.keys()):
            raise AnswerError(f"answered with {min(uneven)} under some of the labels only")
    return SeriesDays({day: _of_day(counts, day) for day in period}, lists_days=bool(listed))


def _of_day(counts: Mapping[str, Mapping[date, int]], day: date) -> DayCounts:
    sent, replied, interested, bounced, unsubscribed = (
        counts[label].get(day, 0) for label in _NUMBERS
    )
    # Of a day that the other labels list, a line of opens without it says nothing.
    nothing = None if day in counts["Sent"] else 0
    total_opens, unique_opens = (
        counts[label].get(day, nothing) if label in counts else None for label in _OPENS
    )
    return DayCounts(
        sent=sent,
        replied=replied,
        interested=interested,
        bounced=bounced,
        unsubscribed=unsubscribed,
        total_opens=total_opens,
        unique_opens=unique_opens,
    )


def _leave_out_day_before(counts: Mapping[str, dict[date, int]], period: list[date]) -> None:
    # Beside days that are missing it may be a sign that all days are shifted by one.
    if not counts["Sent"].keys() >= set(period):
        return
    before = period[0] - timedelta(days=1)
    if [line.pop(before) for line in counts.values() if before in line]:
        report_unknown_fields(["data[].dates of the day before start_date"])


def _by_label(lines: list[_Line]) -> dict[str, dict[date, int]]:
    counts: dict[str, dict[date, int]] = {}
    for line in lines:
        if line.label in counts:
            raise AnswerError(f"answered with {line.label!r} twice")
        counts[line.label] = dict(line.dates)
        if len(counts[line.label]) < len(line.dates):
            raise AnswerError(f"answered with a day repeated under {line.label!r}")
    return counts


def _listed(labels: set[str]) -> str:
    return ", ".join(repr(label) for label in sorted(labels))
