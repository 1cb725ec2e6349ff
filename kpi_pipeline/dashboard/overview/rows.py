"""A client's row of the overview: its cells, with marks where a number is missing or wrong."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from markupsafe import Markup

from kpi_pipeline.dashboard import formatting
from kpi_pipeline.dashboard.charts import bullet, sparkline
from kpi_pipeline.dashboard.marks import missing_reason, not_finite, wrong_values
from kpi_pipeline.dashboard.overview.columns import COLUMNS, Column, Kind
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline.db.dashboard.overview import ClientDay, ClientNumbers
from kpi_pipeline.domain.calendar import days_in_month
from kpi_pipeline.domain.client_problems import Problem
from kpi_pipeline.domain.standing import Standing, daily_quota

# Mailbox providers block senders from about this share of bounces on; the checks warn of it, too.
_MANY_BOUNCES = 5
_TEXT: dict[Kind, Callable[[Any], str]] = {
    Kind.COUNT: formatting.number,
    Kind.QUOTA: formatting.number,
    Kind.PERCENT: formatting.percent,
    Kind.RATE: lambda value: formatting.percent(value, 2),
    Kind.GROWTH: formatting.signed_percent,
}


# Rows that are kept as HTML, each of some kilobytes: those of twenty pages.
_ROWS_KEPT = 2_000


class RowInputs(NamedTuple):
    """All that a client's row is made from: equal ones make the same row.

    `data_from` is when its numbers are from, and `age` how long ago, in words; `from_future` says
    that their `as_of` is still to come. `query` is what links keep, such as ?date=2026-11-01.
    """

    client: ClientDay
    found: ClientNumbers
    standing: Standing
    problems: tuple[Problem, ...]
    cols: tuple[str, ...]
    cards: bool
    query: str
    day: date
    today: date
    data_from: datetime | None
    age: str
    from_future: bool
    nightly_sync: str


class Value(NamedTuple):
    """A number of a cell: its column, its text, and how it is marked; `title` says why.

    `before` stands between it and the number before it.
    """

    column: str
    text: str
    css: str = ""
    title: str = ""
    before: str = ""


class Cell(NamedTuple):
    """A cell of a row. `at` is the instant of an age."""

    column: Column
    values: Sequence[Value] = ()
    chart: Markup = Markup()
    at: datetime | None = None
    wrong: str = ""


@dataclass(frozen=True)
class OverviewRow:
    """A client as the overview shows it.

    `reason` says why it has no numbers, and is empty for one that has; `left` is true for a client
    that is no longer active.
    """

    workspace: str
    label: str
    standing: Standing
    problems: Sequence[Problem]
    reason: str
    left: bool
    cells: Sequence[Cell]

    @property
    def standing_class(self) -> str:
        """The class of the mark before its name."""
        return self.standing.replace(" ", "-")


@lru_cache(maxsize=_ROWS_KEPT)
def row_html(of: Site, inputs: RowInputs) -> Markup:
    """The row as HTML. Making it takes most of a page's time, and few rows change at once."""
    row = overview_row(inputs)
    return Markup(of.part("overview/_row.html", row=row, inputs=inputs))  # noqa: S704 - a template's


def overview_row(inputs: RowInputs) -> OverviewRow:
    """The row of a client."""
    client, day, today = inputs.client, inputs.day, inputs.today
    row = inputs.found.numbers
    reason = "" if row else no_row_reason(client.last_date, day, today, inputs.nightly_sync)
    wrong = wrong_values(row, from_future=inputs.from_future) if row else {}

    def value(name: str, kind: Kind = Kind.COUNT) -> Value:
        number = row[name] if row else None
        if number is None or not_finite(number):
            why = wrong.get(name) or reason or missing_reason(name)
            return Value(name, formatting.MISSING, "na", why)
        text = _TEXT[kind](number)
        return Value(name, text, _css(name, kind, number))

    def cell(column: Column) -> Cell:
        if column.kind is Kind.BAR:
            return _bar(column, row, value, wrong)
        if column.kind is Kind.EMAILS:
            names = ("emails_sent_mtd", "monthly_sending_target") if row else ("emails_sent_mtd",)
            values = _of_target([value(it) for it in names])
            return Cell(column, values, wrong=_first(wrong, *(it.column for it in values)))
        if column.kind is Kind.SPARK:
            return Cell(column, chart=sparkline(inputs.found.daily))
        if column.kind is Kind.AGE:
            at = inputs.data_from
            missing = () if at else (Value("as_of", formatting.MISSING, "na", reason),)
            return Cell(column, missing, at=at, wrong=_first(wrong, "as_of"))
        if column.kind is Kind.QUOTA:
            return Cell(column, [_quota(row, day, today, reason)])
        return Cell(column, [value(column.key, column.kind)], wrong=_first(wrong, column.key))

    return OverviewRow(
        workspace=client.workspace,
        label=formatting.visible(client.label),
        standing=inputs.standing,
        problems=inputs.problems,
        reason=reason,
        left=not client.active,
        cells=[cell(COLUMNS[key]) for key in inputs.cols],
    )


def no_row_reason(last: date | None, day: date, today: date, nightly_sync: str) -> str:
    """Why a client has no row of a day; `last` is the date of its row before."""
    before = f"; the last before it is of {formatting.short_date(last)}" if last else ""
    if day < today:
        return f"No row of this day{before}"
    if last:
        return f"No row of today yet{before}"
    return f"No row yet: the next sync writes the first, tonight at {nightly_sync} at the latest"


def quota_of(row: Mapping[str, Any], day: date) -> int | None:
    """How many emails a day are left to reach the sending target."""
    return daily_quota(
        row["monthly_sending_target"], row["emails_sent_mtd"], row["emails_sent_today"], day
    )


def _quota(row: Mapping[str, Any], day: date, today: date, reason: str) -> Value:
    if row and day < today and day.day == days_in_month(day):
        return Value("daily_quota", formatting.MISSING, "na", "The month is over")
    left = quota_of(row, day) if row else None
    if left is None:
        return Value(
            "daily_quota", formatting.MISSING, "na", reason or missing_reason("daily_quota")
        )
    return Value("daily_quota", formatting.number(left), title="" if left else "Target reached")


def _bar(
    column: Column,
    row: Mapping[str, Any],
    value: Callable[..., Value],
    wrong: Mapping[str, str],
) -> Cell:
    values = [value("positive_replies_mtd")]
    if not row:
        return Cell(column, values)
    values.append(value("monthly_kpi_target"))
    if row["mtd_leads_progress"] is not None:
        values.append(value("mtd_leads_progress", Kind.PERCENT))
    so_far = row["positive_replies_mtd"]
    projection, target = row["projection_positive_replies_eom"], row["monthly_kpi_target"]
    chart = Markup() if so_far is None else bullet(so_far, projection, target)
    marked = _first(wrong, *(it.column for it in values))
    return Cell(column, _of_target(values), chart, wrong=marked)


def _of_target(values: Sequence[Value]) -> list[Value]:
    """The values as they stand beside one another: 50 of 55 · 91 %."""
    between = ("", " of ", " · ")
    return [it._replace(before=text) for it, text in zip(values, between, strict=False)]


def _first(wrong: Mapping[str, str], *columns: str) -> str:
    return next((wrong[it] for it in columns if it in wrong), "")


def _css(name: str, kind: Kind, number: Any) -> str:
    if kind is Kind.GROWTH and number:
        return "up" if number > 0 else "down"
    return "down" if name == "bounce_rate_mtd" and number > _MANY_BOUNCES else ""
