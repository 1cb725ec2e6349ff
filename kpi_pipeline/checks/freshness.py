"""When a client's numbers are stale: one rule for the check `freshness`, `GET /freshness` of the
gateway, and `kpi status`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Self
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from kpi_pipeline.checks.coverage import DAYS_TO_BE_COMPLETE
from kpi_pipeline.checks.outcome import Check, Outcome, Severity, outcome
from kpi_pipeline.db.check_queries.freshness import ClientFreshness, read_freshness
from kpi_pipeline.domain.calendar import business_date, day_start
from kpi_pipeline.domain.formatting import counted, duration, listed, moment
from kpi_pipeline.settings import Settings

_ONE_DAY = timedelta(days=1)
# When the schedule daily_kpi_sync ticks, in KPI_TIMEZONE.
NIGHTLY_SYNC = time(0, 1)
# Clocks that differ by less are right.
_CLOCK_TOLERANCE = timedelta(minutes=1)
_DAYS_NAMED = 3


@dataclass(frozen=True)
class Deadlines:
    """By when a day has to be closed, and how old today's numbers may get.

    `fresh_by` is a time on the wall in `timezone`, which is that of the days unless it is given.
    """

    fresh_by: time = time(6)
    stale_after: timedelta = timedelta(hours=3)
    timezone: ZoneInfo | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The deadlines that the settings name."""
        return cls(settings.fresh_by, settings.stale_after, settings.timezone)

    def closed_by(self, day: date, day_zone: ZoneInfo) -> datetime:
        """By when a day of `day_zone` has to be closed: after the first nightly sync that can.

        Where the days are those of another zone, that sync may begin many hours after their end.
        """
        zone = self.timezone or day_zone
        sync = _next(NIGHTLY_SYNC, day_start(day + _ONE_DAY, day_zone), zone)
        return _next(self.fresh_by, sync, zone)

    def last_closed_day(self, now: datetime, day_zone: ZoneInfo) -> date:
        """The last day of `day_zone` whose numbers have to be final by `now`."""
        day = business_date(now, day_zone) - _ONE_DAY
        while self.closed_by(day, day_zone) > now:
            day -= _ONE_DAY
        return day


def _next(clock: time, instant: datetime, zone: ZoneInfo) -> datetime:
    """The first instant from `instant` on at which clocks in `zone` show that time."""
    day = business_date(instant, zone)
    candidates = (datetime.combine(day + n * _ONE_DAY, clock, zone) for n in (0, 1))
    return next(it for it in (at.astimezone(UTC) for at in candidates) if it >= instant)


@dataclass(frozen=True)
class FreshnessStatus:
    """How fresh a client is.

    `severity` is None for a fresh client; `problems` are sentences. `as_of` is when the latest
    facts behind its rows were requested.
    """

    workspace: str
    as_of: datetime | None
    severity: Severity | None
    problems: Sequence[str]


def freshness_statuses(
    connection: Connection, now: datetime, day_zone: ZoneInfo, deadlines: Deadlines
) -> list[FreshnessStatus]:
    """How fresh each active client is at `now`, ordered by workspace; days are of `day_zone`."""
    today = business_date(now, day_zone)
    to_be_closed = deadlines.last_closed_day(now, day_zone)
    clients = read_freshness(
        connection,
        today=today,
        to_be_closed=to_be_closed,
        since=today - (DAYS_TO_BE_COMPLETE - 1) * _ONE_DAY,
        latest=now + _CLOCK_TOLERANCE,
        zone=day_zone,
    )
    return [_status(it, now, day_zone, deadlines, to_be_closed) for it in clients]


def freshness(
    statuses: Sequence[FreshnessStatus], now: datetime, timezone: ZoneInfo, deadlines: Deadlines
) -> Outcome:
    """The check `freshness`: WARN when a client is late, ERROR past twice the allowed time.

    Facts from the future are an ERROR. Times are shown in `timezone`.
    """
    late = [it for it in statuses if it.severity is not None]
    late.sort(key=lambda it: (it.severity is Severity.WARN, it.as_of or now, it.workspace))
    worst = Severity.ERROR if any(it.severity is Severity.ERROR for it in late) else Severity.WARN
    fresh = f"{len(statuses) - len(late)} of {counted(len(statuses), 'client')} fresh"
    return outcome(
        Check.FRESHNESS,
        [
            {
                "workspace": it.workspace,
                "as_of": moment(it.as_of, timezone) if it.as_of else "never",
                "problem": "; ".join(it.problems),
            }
            for it in late
        ],
        if_passed=f"{fresh}: today's numbers are younger than {duration(deadlines.stale_after)}, "
        "and past days are closed.",
        if_failed=f"{fresh}; stale: {listed([it.workspace for it in late])}. Check the last runs "
        "of daily_kpi_sync and intraday_refresh on the page Runs, and fix what they name; then run "
        "`kpi sync`, which fetches all days that are not closed.",
        severity=worst,
        numbers={"fresh": len(statuses) - len(late), "clients": len(statuses)},
    )


def _status(
    client: ClientFreshness,
    now: datetime,
    day_zone: ZoneInfo,
    deadlines: Deadlines,
    to_be_closed: date,
) -> FreshnessStatus:
    as_of = _youngest(client, now, day_zone)
    found = [
        *_future(client, deadlines.timezone or day_zone),
        *_aged(as_of, now, deadlines),
        *_open(client, now, day_zone, deadlines, to_be_closed),
    ]
    severities = [severity for severity, _ in found]
    worst = max(severities, key=list(Severity).index) if severities else None
    return FreshnessStatus(client.workspace, as_of, worst, [text for _, text in found])


def _youngest(client: ClientFreshness, now: datetime, day_zone: ZoneInfo) -> datetime | None:
    """The instant up to which the client's numbers hold everything.

    The row of a past day says nothing of later days, so fetching it again makes it no younger than
    the end of that day.
    """
    midnight = day_start(business_date(now, day_zone), day_zone)
    known = [_until(client.of_today, now), _until(client.of_yesterday, midnight)]
    latest = max((it for it in known if it is not None), default=None)
    if latest is not None or client.last_date is None:
        return latest
    return _until(client.last_as_of, day_start(client.last_date + _ONE_DAY, day_zone))


def _until(instant: datetime | None, end: datetime) -> datetime | None:
    return None if instant is None else min(instant, end)


def _future(client: ClientFreshness, timezone: ZoneInfo) -> Iterator[tuple[Severity, str]]:
    if client.future_as_of is not None:
        claimed = moment(client.future_as_of, timezone)
        yield (
            Severity.ERROR,
            f"its facts claim to be from {claimed}, which is still to come: a clock was ahead, "
            "and the next sync replaces them",
        )


def _aged(
    as_of: datetime | None, now: datetime, deadlines: Deadlines
) -> Iterator[tuple[Severity, str]]:
    if as_of is None:
        yield Severity.WARN, "it has no row yet"
        return
    age = now - as_of
    if age > deadlines.stale_after:
        late = age > 2 * deadlines.stale_after
        yield _graded(late), f"its numbers are {duration(age)} old"


def _open(
    client: ClientFreshness,
    now: datetime,
    day_zone: ZoneInfo,
    deadlines: Deadlines,
    to_be_closed: date,
) -> Iterator[tuple[Severity, str]]:
    days = list(client.open_dates)
    # A client that was added later needs no row of that day.
    is_due = client.first_date is not None and client.first_date <= to_be_closed
    if is_due and not client.has_closing:
        days.append(to_be_closed)
    if days:
        # The end of the oldest day to its deadline is the allowed time; twice that is an error.
        ended = day_start(days[0] + _ONE_DAY, day_zone)
        late = now - ended >= 2 * (deadlines.closed_by(days[0], day_zone) - ended)
        named = listed([f"{day}" for day in days], _DAYS_NAMED)
        yield _graded(late), f"{named} {'is' if len(days) == 1 else 'are'} not closed"


def _graded(twice: bool) -> Severity:
    return Severity.ERROR if twice else Severity.WARN
