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
from kpi_pipeline.domain.formatting import listed, moment, whose_day

# Projection of the month in percent of its target.
_AHEAD = 110
_ON_TRACK = 90
# A chat message holds a few dozen lines; `kpi metrics` prints the whole table.
_MAX_LINES = 40
_UNKNOWN = "–"


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
    groups: dict[str, list[MetricRow]] = {
        "Ahead": [],
        "On track": [],
        "Behind": [],
        "No target": [],
    }
    for row in rows:
        if row.as_of is not None:
            groups[_group_of(row)].append(row)
    known = sum(row.as_of is not None for row in rows)
    lines = [
        f"{known} of {len(rows)} clients have numbers.",
        _total(summary),
        *(line for name, group in groups.items() for line in _group(name, group, summary)),
        *_stale(stale, timezone),
    ]
    title = f"KPIs of {summary.day:%A, %d %B %Y}{whose_day(day_zone, timezone)}"
    return Message(title, "\n".join(lines), bad=None)


def replies_of_day(summary: SummaryOfDay, row: MetricRow) -> int | None:
    """Replies of any kind on the day: month to date minus that of the day before."""
    if row.all_replies_mtd is None or summary.day.day == 1:
        return row.all_replies_mtd
    before = summary.day_before.get(row.workspace)
    if before is None or before.all_replies_mtd is None:
        return None
    return row.all_replies_mtd - before.all_replies_mtd


def is_on_track(row: MetricRow) -> bool:
    """Whether the client's projection reaches its target, or nearly; False without a target."""
    percent = row.projection_replies_progress
    return bool(row.monthly_kpi_target) and percent is not None and percent >= _ON_TRACK


def _group_of(row: MetricRow) -> str:
    percent = row.projection_replies_progress
    if not row.monthly_kpi_target or percent is None:
        return "No target"
    if percent >= _AHEAD:
        return "Ahead"
    return "On track" if is_on_track(row) else "Behind"


def _is_closed(row: MetricRow, day: date, day_zone: ZoneInfo) -> bool:
    """Whether the row is computed from facts requested after the day was over."""
    return row.as_of is not None and row.as_of >= day_start(day + timedelta(days=1), day_zone)


def _total(summary: SummaryOfDay) -> str:
    rows = [row for row in summary.rows if row.as_of is not None]
    replies = _sum(replies_of_day(summary, row) for row in rows)
    emails = _sum(row.emails_sent_today for row in rows)
    positive = _sum(row.positive_replies_today for row in rows)
    month = _sum(row.positive_replies_mtd for row in rows)
    return f"All: {_day(emails, replies, positive)}; {_number(month)} this month."


def _sum(numbers: Iterable[int | None]) -> int | None:
    """The sum of the known numbers; None if there is none."""
    known = [it for it in numbers if it is not None]
    return sum(known) if known else None


def _group(name: str, rows: Sequence[MetricRow], summary: SummaryOfDay) -> Iterable[str]:
    if not rows:
        return
    yield f"\n{name} ({len(rows)})"
    ranked = sorted(rows, key=_rank)
    for row in ranked[:_MAX_LINES]:
        yield f"- {row.display_name}: {_client(row, summary)}"
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
    heading = f"heading for {_number(row.projection_positive_replies_eom)}"
    if not row.monthly_kpi_target or row.projection_replies_progress is None:
        return f"{day}; month {month}, {heading}; {_mail(row)}"
    percent = _percent(row.projection_replies_progress, 0)
    month = f"month {month} of {row.monthly_kpi_target:,}, {heading} ({percent})"
    return f"{day}; {month}; {_mail(row)}"


def _mail(row: MetricRow) -> str:
    """The month's emails, against their target, and what they brought."""
    emails = f"{_number(row.emails_sent_mtd)} emails"
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
        f"{_number(emails)} emails, {_number(replies)} replies, "
        f"{_number(positive)} positive replies"
    )


def _number(value: int | None) -> str:
    return _UNKNOWN if value is None else f"{value:,}"


def _stale(rows: Sequence[MetricRow], timezone: ZoneInfo) -> Iterable[str]:
    if not rows:
        return
    yield f"\nStale ({len(rows)}): the day is not closed; see `kpi status`"
    for row in rows[:_MAX_LINES]:
        state = "no numbers" if row.as_of is None else f"as of {moment(row.as_of, timezone)}"
        yield f"- {row.display_name}: {state}"
    if len(rows) > _MAX_LINES:
        names = [row.display_name for row in rows[_MAX_LINES:]]
        yield f"… and {len(names)} more: {listed(names)}"
