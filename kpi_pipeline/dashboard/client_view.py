"""What the page of one client shows, worked out from its stored days: no database, no request."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from markupsafe import Markup

from kpi_pipeline.dashboard import formatting
from kpi_pipeline.dashboard.charts_month import Bar, Line, bar_chart, line_chart
from kpi_pipeline.dashboard.formatting import MISSING, number
from kpi_pipeline.dashboard.marks import missing_reason, not_finite, wrong_values
from kpi_pipeline.db.dashboard.client import NUMBERS, HeldTarget, Number, StoredDay
from kpi_pipeline.domain.calendar import (
    days_between,
    days_in_month,
    first_of_month,
    first_of_previous_month,
)
from kpi_pipeline.domain.columns import PERCENTAGES
from kpi_pipeline.domain.formatting import counted

Days = Mapping[date, StoredDay]

CHART_DAYS = 90
_ONE_DAY = timedelta(days=1)
_SATURDAY = 5

# The groups of columns of the month's table, and the heading of each column.
TABLE: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("On the day", (("positive_replies_today", "Positive"), ("emails_sent_today", "Emails"))),
    (
        "Month to date",
        (
            ("positive_replies_mtd", "Positive"),
            ("positive_replies_current_month", "Current month"),
            ("all_replies_mtd", "Replies"),
            ("emails_sent_mtd", "Emails"),
            ("bounced_mtd", "Bounces"),
            ("unsubscribed_mtd", "Unsubscribes"),
        ),
    ),
    (
        "Positive replies of target",
        (
            ("monthly_kpi_target", "Target"),
            ("mtd_leads_progress", "So far"),
            ("projection_positive_replies_eom", "Projection"),
            ("projection_replies_progress", "Projected"),
        ),
    ),
    (
        "Emails of target",
        (
            ("monthly_sending_target", "Target"),
            ("sending_progress", "So far"),
            ("projection_emails_eom", "Projection"),
            ("projection_sending_progress", "Projected"),
        ),
    ),
    (
        "Positive replies in the last",
        (
            ("positive_replies_last_7_days", "7 days"),
            ("last_week_vs_week_before_progress", "on the week before"),
            ("positive_replies_last_14_days", "14 days"),
            ("positive_replies_last_30_days", "30 days"),
            ("positive_replies_last_month", "month"),
        ),
    ),
    (
        "Emails in the last",
        (
            ("emails_sent_last_7_days", "7 days"),
            ("emails_sent_last_14_days", "14 days"),
            ("emails_sent_last_30_days", "30 days"),
        ),
    ),
    (
        "Rates of the month",
        (
            ("reply_rate_mtd", "Replies"),
            ("positive_rate_mtd", "Positive"),
            ("bounce_rate_mtd", "Bounces"),
        ),
    ),
    (
        "Emails planned",
        (("emails_scheduled_today", "that day"), ("emails_scheduled_tomorrow", "the next")),
    ),
)
COLUMNS = tuple(name for _, columns in TABLE for name, _ in columns)


@dataclass(frozen=True)
class Cell:
    """One number of a table, as text.

    `why` says why it is missing, and `wrong` why it can't be right.
    """

    column: str
    text: str
    why: str = ""
    wrong: str = ""


@dataclass(frozen=True)
class DayLine:
    """One day of the month's table. `remark` says what is particular about the day."""

    date: date
    weekend: bool
    remark: str
    cells: Sequence[Cell]
    day: StoredDay | None


@dataclass(frozen=True)
class TargetPeriod:
    """Targets and the months in which they hold; `until` is None for the last ones."""

    target: HeldTarget
    until: date | None
    now: bool


def numbers_of(day: StoredDay | None) -> dict[str, Number]:
    """Every number of a day, None where it has no row, or where its row holds no number."""
    stored = {} if day is None else day.numbers
    return {name: _finite(stored.get(name)) for name in NUMBERS}


def cell(column: str, day: StoredDay | None, wrong: str = "") -> Cell:
    """A number as the month's table shows it: percentages with the two places of their row."""
    value = None if day is None else day.numbers.get(column)
    if value is None or not_finite(value):
        return Cell(column, MISSING, _why_missing(column, day), wrong)
    if column in PERCENTAGES:
        return Cell(column, formatting.percent(value, 2), wrong=wrong)
    return Cell(column, number(int(value)), wrong=wrong)


def month_lines(days: Days, day: date) -> list[DayLine]:
    """A line for each day of the month until `day`, the latest first."""
    shown = reversed(days_between(first_of_month(day), day))
    return [_day_line(it, days.get(it)) for it in shown]


def month_chart(days: Days, day: date) -> Markup:
    """Positive replies of the month, cumulative, with projection, target and the month before."""
    first, length = first_of_month(day), days_in_month(day)
    before = first_of_previous_month(day)
    shown = numbers_of(days.get(day))
    target, projection = shown["monthly_kpi_target"], shown["projection_positive_replies_eom"]
    last_month = _cumulative(days, before, first - _ONE_DAY)
    this_month = _cumulative(days, first, day)
    so_far, is_over = _last(this_month), day.day == length
    lines = [Line("last", f"{before:%B} {number(_last(last_month))}", last_month)]
    if target is not None:
        label = f"target {number(int(target))}"
        lines.append(Line("target", label, [(0, 0), (length, int(target))]))
    if projection is not None and not is_over and this_month[-1][1] is not None:
        label = f"projected {number(int(projection))}"
        lines.append(Line("proj", label, [this_month[-1], (length, int(projection))]))
    label = f"{day:%B} {number(so_far)}" if is_over else number(so_far)
    lines.append(Line("line", label, this_month, within=not is_over))
    return line_chart(
        [it for it in lines if _last(it.points) is not None],
        max(length, days_in_month(before)),
        _month_summary(day, shown, _last(last_month)),
        texts=list(_month_texts(days, first, day)),
    )


def daily_chart(days: Days, day: date, column: str, name: str, first_row: date | None) -> Markup:
    """A bar for each of the 90 days until `day`. `column` is a count of each day."""
    shown = days_between(day - timedelta(days=CHART_DAYS - 1), day)
    bars = [_bar(it, days.get(it), column, name, first_row) for it in shown]
    missing = sum(bar.value is None for bar in bars)
    total = sum(bar.value or 0 for bar in bars)
    known = f"{number(total)} in all"
    if missing:
        known += f", {counted(missing, 'day')} without a number"
    summary = (
        f"{name} on each day from {formatting.short_date(shown[0])} to "
        f"{formatting.short_date(day)}: {known}. The month's table has the numbers."
    )
    return bar_chart(bars, summary)


def gaps(days: Days, day: date, first_row: date | None) -> list[tuple[date, date]]:
    """The first and the last of each group of days that were never fetched, among 90 days."""
    shown = days_between(day - timedelta(days=CHART_DAYS - 1), day)
    found: list[tuple[date, date]] = []
    for it in shown:
        stored = days.get(it)
        if (stored is not None and stored.fetched_at is not None) or _is_before(it, first_row):
            continue
        if found and found[-1][1] == it - _ONE_DAY:
            found[-1] = (found[-1][0], it)
        else:
            found.append((it, it))
    return found


def target_periods(targets: Sequence[HeldTarget], day: date) -> list[TargetPeriod]:
    """The history of targets, the latest first, as it comes from `client_targets`."""
    found = []
    later: date | None = None
    now = next((it for it in targets if it.holds_from <= first_of_month(day)), None)
    for it in targets:
        until = None if later is None else first_of_previous_month(later)
        found.append(TargetPeriod(it, until, it is now))
        later = it.holds_from
    return found


def _finite(value: Number) -> Number:
    return None if not_finite(value) else value


def _why_missing(column: str, day: StoredDay | None) -> str:
    if day is None:
        return "This day was never fetched"
    return missing_reason(column) if day.numbers else "This day was fetched, and has no row"


def _day_line(day: date, stored: StoredDay | None) -> DayLine:
    remark = ""
    if stored is None:
        remark = "never fetched"
    elif not stored.numbers:
        remark = "no row"
    elif stored.fetched_at is None:
        remark = "events only, not fetched"
    wrong = wrong_values(stored.numbers) if stored is not None and stored.numbers else {}
    cells = [cell(name, stored, wrong.get(name, "")) for name in COLUMNS]
    return DayLine(day, day.weekday() >= _SATURDAY, remark, cells, stored)


def _cumulative(days: Days, first: date, last: date) -> list[tuple[int, float | None]]:
    points: list[tuple[int, float | None]] = [
        (it.day, _count(days.get(it), "positive_replies_mtd")) for it in days_between(first, last)
    ]
    # The month begins with 0, which is drawn where its first day is known.
    return [(0, 0), *points] if points[0][1] is not None else points


def _count(day: StoredDay | None, column: str) -> int | None:
    value = None if day is None else _finite(day.numbers.get(column))
    return None if value is None else int(value)


def _last(points: Sequence[tuple[int, float | None]]) -> int | None:
    """The last known value."""
    known = [value for _, value in points if value is not None]
    return int(known[-1]) if known else None


def _month_summary(day: date, shown: Mapping[str, Number], last_month: int | None) -> str:
    so_far, projection, target = (
        None if (value := shown[name]) is None else int(value)
        for name in (
            "positive_replies_mtd",
            "projection_positive_replies_eom",
            "monthly_kpi_target",
        )
    )
    said = [f"{number(so_far)} until day {day.day}"]
    if day.day < days_in_month(day):
        said.append(f"projected {number(projection)}")
    if target is not None:
        said.append(f"target {number(target)}")
    elif so_far is not None:
        said.append("no target")
    said.append(f"the month before {number(last_month)}")
    return f"Positive replies of {formatting.month(day)}, cumulative: {', '.join(said)}"


def _month_texts(days: Days, first: date, day: date) -> Iterator[str]:
    for it in days_between(first, day):
        so_far, on_day = (
            _count(days.get(it), name)
            for name in ("positive_replies_mtd", "positive_replies_today")
        )
        yield f"{it:%a} {formatting.short_date(it)}: {number(so_far)}, {number(on_day)} on the day"


def _bar(
    day: date, stored: StoredDay | None, column: str, name: str, first_row: date | None
) -> Bar:
    value = _count(stored, column)
    said = f"{day:%a} {formatting.short_date(day)}: "
    reason = ""
    if value is not None:
        said += f"{number(value)} {name.lower()}"
        if stored is not None and stored.fetched_at is None:
            said += ", by events alone: never fetched"
    else:
        reason = _gap_reason(day, stored, first_row)
        said += reason
    tick = f"{day.day} {day:%b}" if day.day in (1, 15) else ""
    return Bar(value, said, reason, tick, day.weekday() >= _SATURDAY)


def _gap_reason(day: date, stored: StoredDay | None, first_row: date | None) -> str:
    if _is_before(day, first_row):
        return (
            f"no numbers before {formatting.short_date(first_row)}"
            if first_row
            else "no numbers yet"
        )
    if stored is None:
        return "never fetched"
    return "no number" if stored.numbers else "no row"


def _is_before(day: date, first_row: date | None) -> bool:
    return first_row is None or day < first_row
