"""The daily series: seven labelled lines of [day, count] become one row of counts a day."""

import re
from datetime import date, timedelta
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator

from kpi_pipeline.bison.answers import AnswerError, Count, WireAnswer, fit, report_unknown_fields
from kpi_pipeline.bison.model import DayCounts

# The labels of the vendor's document. They are matched by name: their order is not promised.
FIELD_OF_LABEL = {
    "Replied": "replied",
    "Total Opens": "total_opens",
    "Sent": "sent",
    "Unsubscribed": "unsubscribed",
    "Bounced": "bounced",
    "Interested": "interested",
    "Unique Opens": "unique_opens",
}


def _day(value: object) -> date:
    # date.fromisoformat alone would also take 20250503 and 2025-W18-6.
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        return date.fromisoformat(value)
    raise ValueError("it is no day of the form YYYY-MM-DD")


def _known_lines(lines: object) -> object:
    """Leave out lines with unknown labels, whatever they hold, and report the labels."""
    if not isinstance(lines, list):
        return lines
    labels = [_unknown_label(line) for line in lines]
    report_unknown_fields(f"data[].label {label!r}" for label in labels if label is not None)
    return [line for line, label in zip(lines, labels, strict=True) if label is None]


def _unknown_label(line: object) -> str | None:
    label = line.get("label") if isinstance(line, dict) else None
    return label if isinstance(label, str) and label not in FIELD_OF_LABEL else None


class _Line(WireAnswer):
    documented = frozenset({"color"})

    label: str
    dates: list[tuple[Annotated[date, BeforeValidator(_day)], Count]]


class _SeriesAnswer(WireAnswer):
    data: Annotated[list[_Line], BeforeValidator(_known_lines)]


class SeriesDays(NamedTuple):
    """The counts of each day of one answer's period; and whether the answer lists any day."""

    days: dict[date, DayCounts]
    lists_days: bool


def days_of(body: object, first: date, last: date) -> SeriesDays:
    """The counts of every day from `first` to `last`, both included.

    A day that no label lists is a day of zeros: the answer is whole, and nothing happened.

    Raises:
        AnswerError: if the shape is wrong, a label is missing or comes twice, a day lies outside
            the period or is repeated, or only some of the labels list a day.
    """
    counts = _by_label(fit(_SeriesAnswer, body).data)
    if missing := FIELD_OF_LABEL.keys() - counts.keys():
        raise AnswerError(f"answered without {_listed(missing)}")
    listed = counts["Sent"].keys()
    for label, line in counts.items():
        if outside := [day for day in line if not first <= day <= last]:
            raise AnswerError(
                f"answered with {outside[0]} under {label!r}, outside {first} to {last}"
            )
        if uneven := line.keys() ^ listed:
            raise AnswerError(f"answered with {min(uneven)} under some of the seven labels only")
    period = (first + timedelta(days=n) for n in range((last - first).days + 1))
    days = {
        day: DayCounts(
            **{FIELD_OF_LABEL[label]: line.get(day, 0) for label, line in counts.items()}
        )
        for day in period
    }
    return SeriesDays(days, lists_days=bool(listed))


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
