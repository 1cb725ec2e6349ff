"""Totals over the clients that the overview shows, and the age of their data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from operator import attrgetter
from zoneinfo import ZoneInfo

from kpi_pipeline.dashboard.formatting import visible
from kpi_pipeline.db.dashboard.overview import ClientDay
from kpi_pipeline.domain.calendar import day_start
from kpi_pipeline.domain.standing import LIVE_FOR, Age, data_age

_ONE_DAY = timedelta(days=1)
# Clocks that differ by less are right.
_CLOCK_TOLERANCE = timedelta(minutes=1)
_Number = Callable[[ClientDay], int | None]


@dataclass(frozen=True)
class Month:
    """A month's sum against its target.

    `so_far` and `projection` are of all clients. The target, and the percentages of it, are of the
    clients that have one: `without` counts the others, and `of_others` their numbers.
    """

    so_far: int | None
    projection: int | None
    target: int | None
    progress: float | None
    projected_progress: float | None
    without: int
    of_others: int | None


@dataclass(frozen=True)
class Compared:
    """The sum of another day, and the difference of this day's to it, over the clients with both.

    Both are None where no client has both numbers.
    """

    sum: int | None
    difference: int | None
    clients: int


@dataclass(frozen=True)
class Totals:
    """Sums over clients; None where no client has the number. `as_of` is the oldest of theirs."""

    replies: Month
    emails: Month
    replies_today: int | None
    replies_yesterday: Compared
    replies_week_before: Compared
    emails_today: int | None
    emails_yesterday: Compared
    emails_week_before: Compared
    planned_today: int | None
    planned_tomorrow: int | None
    unplanned: int
    as_of: datetime | None
    clients: int
    with_row: int


@dataclass(frozen=True)
class Badge:
    """The age of the data of a page: a word, since when, and the names that it is about.

    `css` is live, fresh, stale, no-data, or final and open for a past day.
    """

    css: str
    word: str
    at: datetime | None
    names: Sequence[str] = ()


def totals(clients: Sequence[ClientDay]) -> Totals:
    """The totals over these clients."""
    rows = [it for it in clients if it.has_row]
    replies_today = attrgetter("positive_replies_today")
    emails_today = attrgetter("emails_sent_today")
    return Totals(
        replies=_month(
            rows,
            attrgetter("positive_replies_mtd"),
            attrgetter("projection_positive_replies_eom"),
            attrgetter("monthly_kpi_target"),
        ),
        emails=_month(
            rows,
            attrgetter("emails_sent_mtd"),
            attrgetter("projection_emails_eom"),
            attrgetter("monthly_sending_target"),
        ),
        replies_today=_sum(map(replies_today, rows)),
        replies_yesterday=_compared(rows, replies_today, attrgetter("replies_yesterday")),
        replies_week_before=_compared(rows, replies_today, attrgetter("replies_week_before")),
        emails_today=_sum(map(emails_today, rows)),
        emails_yesterday=_compared(rows, emails_today, attrgetter("emails_yesterday")),
        emails_week_before=_compared(rows, emails_today, attrgetter("emails_week_before")),
        planned_today=_sum(map(attrgetter("emails_scheduled_today"), rows)),
        planned_tomorrow=_sum(map(attrgetter("emails_scheduled_tomorrow"), rows)),
        unplanned=sum(it.emails_scheduled_today is None for it in rows),
        as_of=min((it.as_of for it in rows if it.as_of), default=None),
        clients=len(clients),
        with_row=len(rows),
    )


def data_from(client: ClientDay, now: datetime, zone: ZoneInfo) -> datetime | None:
    """The instant up to which a client's numbers hold everything that Email Bison counted.

    The row of an earlier day says nothing of later ones. None: there is no row, or its facts claim
    to be from the future.
    """
    at = client.as_of
    if at is None and client.last_as_of is not None and client.last_date is not None:
        at = min(client.last_as_of, day_start(client.last_date + _ONE_DAY, zone))
    return None if at is None or at > now + _CLOCK_TOLERANCE else at


def badge(
    clients: Sequence[ClientDay], known: Mapping[str, datetime | None], now: datetime,
    stale_after: timedelta,
) -> Badge:  # fmt: skip
    """The age of today's data; `known` has the `data_from` of each client.

    An event makes the page live, and no client fresh: what it did not count is as old as before.
    """
    labels = {it.workspace: it.label for it in clients}
    found = data_age(dict(known), now, stale_after)
    if found.age is Age.STALE:
        at = min((it for name in found.stale if (it := known[name])), default=None)
        return Badge("stale", found.age, at, [visible(labels[it]) for it in found.stale])
    if found.age is Age.NO_DATA:
        return Badge("no-data", found.age, None)
    events = [it.happened_at for it in clients if it.happened_at and it.happened_at <= now]
    latest = max(events, default=None)
    if latest and found.latest and latest > found.latest and now - latest <= LIVE_FOR:
        return Badge("live", Age.LIVE, latest)
    return Badge(found.age.lower(), found.age, found.latest)


def badge_of_past(clients: Sequence[ClientDay], day: date, zone: ZoneInfo) -> Badge:
    """Whether the numbers of a past day are final: all asked for after its end."""
    end = day_start(day + _ONE_DAY, zone)
    times = [(it.label, it.as_of) for it in clients if it.as_of]
    if not times:
        return Badge("no-data", "No data of this day", None)
    oldest = min(as_of for _, as_of in times)
    if open_ones := [visible(label) for label, as_of in times if as_of < end]:
        return Badge("open", "Not final", oldest, open_ones)
    return Badge("final", "Final", oldest)


def _month(rows: Sequence[ClientDay], so_far: _Number, projection: _Number, of: _Number) -> Month:
    counted = [it for it in rows if of(it) is not None]
    # A client that lacks the number is on neither side of the percentage.
    with_both = [it for it in counted if so_far(it) is not None]
    others = [it for it in rows if of(it) is None]
    return Month(
        so_far=_sum(map(so_far, rows)),
        projection=_sum(map(projection, rows)),
        target=_sum(map(of, counted)),
        progress=_percent(_sum(map(so_far, with_both)), _sum(map(of, with_both))),
        projected_progress=_percent(_sum(map(projection, with_both)), _sum(map(of, with_both))),
        without=len(others),
        of_others=_sum(map(so_far, others)),
    )


def _compared(rows: Sequence[ClientDay], on_day: _Number, before: _Number) -> Compared:
    pairs = [
        (this, earlier)
        for it in rows
        if (this := on_day(it)) is not None and (earlier := before(it)) is not None
    ]
    return Compared(
        _sum(earlier for _, earlier in pairs),
        _sum(this - earlier for this, earlier in pairs),
        len(pairs),
    )


def _sum(numbers: Iterable[int | None]) -> int | None:
    known = [it for it in numbers if it is not None]
    return sum(known) if known else None


def _percent(part: int | None, whole: int | None) -> float | None:
    return None if part is None or not whole else part * 100 / whole
