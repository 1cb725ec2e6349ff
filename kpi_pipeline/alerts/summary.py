"""The daily summary: yesterday by client, the month against its target, and stale clients.

All its numbers are those of `client_metrics`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from kpi_pipeline.alerts.message import Message
from kpi_pipeline.db.metrics import MetricRow, read_metrics
from kpi_pipeline.domain.calendar import day_start
from kpi_pipeline.domain.formatting import counted, listed, moment, whose_day
from kpi_pipeline.domain.outside_names import visible
from kpi_pipeline.domain.standing import Standing, standing

# A chat message holds a few dozen lines; `kpi metrics` prints the whole table.
_MAX_LINES = 40
_UNKNOWN = "–"
# What went well is said first.
_ORDER = (
    Standing.ABOVE_TARGET,
    Standing.ON_TRACK,
    Standing.BEHIND,
    Standing.NO_TARGET,
    Standing.NO_DATA,
)


@dataclass(frozen=True)
class SummaryOfDay:
    """The rows of a date and of the day before it, by client."""

    day: date
    rows: Sequence[MetricRow]
    day_before: Mapping[str, MetricRow]


def read_summary(connection: Connection, day: date) -> SummaryOfDay:
    """The rows for the summary of `day`: all active clients, with or without numbers."""
    before = read_metrics(connection, day - timedelta(days=1))
    return SummaryOfDay(day, read_metrics(connection, day), {it.workspace: it for it in before})


def summary_text(summary: SummaryOfDay, timezone: ZoneInfo, day_zone: ZoneInfo) -> Message:
    """The summary as a message: its day is one of `day_zone`, its times are of `timezone`."""
    rows = summary.rows
    stale = [row for row in rows if not _is_closed(row, summary.day, day_zone)]
    groups: dict[Standing, list[MetricRow]] = {it: [] for it in _ORDER}
    for row in rows:
        if row.as_of is not None:
            groups[standing_of(row)].append(row)
    known = sum(map(len, groups.values()))
    lines = [
        f"{known} of {counted(len(rows), 'client')} {'has' if len(rows) == 1 else 'have'} numbers.",
        _total(summary),
        *(line for name, group in groups.items() for line in _group(name, group, summary)),
        *_stale(stale, timezone),
    ]
    title = f"KPIs of {summary.day:%A, %d %B %Y}{whose_day(day_zone, timezone)}"
    return Message(title, "\n".join(lines))


def replies_of_day(summary: SummaryOfDay, row: MetricRow) -> int | None:
    """Replies of any kind on the day: month to date minus that of the day before."""
    if row.all_replies_mtd is None or summary.day.day == 1:
        return row.all_replies_mtd
    before = summary.day_before.get(row.workspace)
    if before is None or before.all_replies_mtd is None:
        return None
    return row.all_replies_mtd - before.all_replies_mtd


def standing_of(row: MetricRow) -> Standing:
    """Where the client's month stands."""
    return standing(
        row.positive_replies_mtd, row.projection_positive_replies_eom, row.monthly_kpi_target
    )


def _is_closed(row: MetricRow, day: date, day_zone: ZoneInfo) -> bool:
    """Whether the row is computed from facts requested after the day was over."""
    return row.as_of is not None and row.as_of >= day_start(day + timedelta(days=1), day_zone)


def _total(summary: SummaryOfDay) -> str:
    rows = [row for row in summary.rows if row.as_of is not None]
    replies = _sum(replies_of_day(summary, row) for row in rows)
    emails = _sum(row.emails_sent_today for row in rows)
    positive = _sum(row.positive_replies_today for row in rows)
    month = _sum(row.positive_replies_mtd for row in rows)
    month_so_far = _counted(month, "positive reply")
    return f"All: {_day(emails, replies, positive)}; {month_so_far} this month."


def _sum(numbers: Iterable[int | None]) -> int | None:
    """The sum of the known numbers; None if there is none."""
    known = [it for it in numbers if it is not None]
    return sum(known) if known else None


def _group(group: Standing, rows: Sequence[MetricRow], summary: SummaryOfDay) -> Iterable[str]:
    if not rows:
        return
    yield f"\n{group.capitalize()} ({len(rows)})"
    ranked = sorted(rows, key=_rank)
    for row in ranked[:_MAX_LINES]:
        yield f"- {visible(row.display_name)}: {_client(row, summary)}"
    if len(ranked) > _MAX_LINES:
        yield f"… and {len(ranked) - _MAX_LINES} more"


def _rank(row: MetricRow) -> tuple[Decimal, int, str]:
    """Best progress first; without a target, most positive replies first."""
    progress = row.projection_replies_progress or Decimal(0)
    return -progress, -(row.positive_replies_mtd or 0), row.display_name


def _client(row: MetricRow, summary: SummaryOfDay) -> str:
    replies = replies_of_day(summary, row)
    day = _day(row.emails_sent_today, replies, row.positive_replies_today)
    month = _number(row.positive_replies_mtd)
    if row.monthly_kpi_target is not None:
        month += f" of {row.monthly_kpi_target:,}"
    heading = f"heading for {_number(row.projection_positive_replies_eom)}"
    if row.projection_replies_progress is not None:
        heading += f" ({_percent(row.projection_replies_progress, 0)})"
    return f"{day}; month {month}, {heading}; {_mail(row)}"


def _mail(row: MetricRow) -> str:
    """The month's emails, against their target, and what they brought."""
    emails = f"{_counted(row.emails_sent_mtd, 'email')} sent"
    if row.monthly_sending_target:
        share = _percent(row.projection_sending_progress, 0)
        emails += f" of {row.monthly_sending_target:,} (heading for {share})"
    return (
        f"{emails}: {_percent(row.reply_rate_mtd)} replied, "
        f"{_percent(row.positive_rate_mtd, 2)} positive, {_percent(row.bounce_rate_mtd)} bounced"
    )


def _percent(value: Decimal | None, places: int = 1) -> str:
    return _UNKNOWN if value is None else f"{value:,.{places}f} %"


def _day(emails: int | None, replies: int | None, positive: int | None) -> str:
    return (
        f"{_counted(emails, 'email')} sent, {_counted(replies, 'reply')}, "
        f"{_counted(positive, 'positive reply')}"
    )


def _counted(value: int | None, thing: str) -> str:
    """The number with its noun; an unknown one is not 0."""
    return counted(value, thing) if value is not None else counted(0, thing).replace("0", _UNKNOWN)


def _number(value: int | None) -> str:
    return _UNKNOWN if value is None else f"{value:,}"


def _stale(rows: Sequence[MetricRow], timezone: ZoneInfo) -> Iterable[str]:
    if not rows:
        return
    yield f"\nStale ({len(rows)}): the day is not closed; see `kpi status`"
    for row in rows[:_MAX_LINES]:
        state = "no numbers" if row.as_of is None else f"as of {moment(row.as_of, timezone)}"
        yield f"- {visible(row.display_name)}: {state}"
    if len(rows) > _MAX_LINES:
        names = [visible(row.display_name) for row in rows[_MAX_LINES:]]
        yield f"… and {len(names)} more: {listed(names)}"
