"""When a client's numbers are stale: one rule for the check `freshness`, `GET /freshness` of the
gateway, and `kpi status`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Self
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from kpi_pipeline.checks.outcome import Check, Outcome, Severity, outcome
from kpi_pipeline.db.check_queries.freshness import ClientFreshness, read_freshness
from kpi_pipeline.domain.calendar import business_date, day_start
from kpi_pipeline.domain.formatting import counted, duration, listed, moment
from kpi_pipeline.settings import Settings

_ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Deadlines:
    """By when yesterday has to be closed, in local time, and how old today's numbers may get."""

    fresh_by: time = time(6)
    stale_after: timedelta = timedelta(hours=3)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The deadlines that the settings name."""
        return cls(settings.fresh_by, settings.stale_after)

    def last_closed_day(self, now: datetime, timezone: ZoneInfo) -> date:
        """The last day whose numbers have to be final by `now`.

        Before the deadline, the nightly sync may still be running.
        """
        in_time = now.astimezone(timezone).time() < self.fresh_by
        return business_date(now, timezone) - (2 if in_time else 1) * _ONE_DAY


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
    connection: Connection, now: datetime, timezone: ZoneInfo, deadlines: Deadlines
) -> list[FreshnessStatus]:
    """How fresh each active client is at `now`, ordered by workspace."""
    to_be_closed = deadlines.last_closed_day(now, timezone)
    clients = read_freshness(connection, business_date(now, timezone), to_be_closed)
    return [_status(it, now, timezone, deadlines, to_be_closed) for it in clients]


def freshness(
    statuses: Sequence[FreshnessStatus], now: datetime, timezone: ZoneInfo, deadlines: Deadlines
) -> Outcome:
    """The check `freshness`: WARN when a client is late, ERROR past twice the allowed time."""
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
        "of daily_kpi_sync and hourly_refresh on the page Runs, and fix what they name; then run "
        "`kpi sync`, or materialize yesterday and today of these clients.",
        severity=worst,
        numbers={"fresh": len(statuses) - len(late), "clients": len(statuses)},
    )


def _status(
    client: ClientFreshness,
    now: datetime,
    timezone: ZoneInfo,
    deadlines: Deadlines,
    to_be_closed: date,
) -> FreshnessStatus:
    as_of = _youngest(client, now, timezone)
    found = [
        *_aged(as_of, now, deadlines),
        *_unclosed(client, now, timezone, deadlines, to_be_closed),
    ]
    severities = [severity for severity, _ in found]
    worst = max(severities, key=list(Severity).index) if severities else None
    return FreshnessStatus(client.workspace, as_of, worst, [text for _, text in found])


def _youngest(client: ClientFreshness, now: datetime, timezone: ZoneInfo) -> datetime | None:
    """The instant up to which the client's numbers hold everything.

    The row of a past day says nothing of later days, so fetching it again makes it no younger than
    the end of that day.
    """
    midnight = day_start(business_date(now, timezone), timezone)
    known = [client.of_today, _until(client.of_yesterday, midnight)]
    latest = max((it for it in known if it is not None), default=None)
    if latest is not None or client.last_date is None:
        return latest
    return _until(client.last_as_of, day_start(client.last_date + _ONE_DAY, timezone))


def _until(instant: datetime | None, end: datetime) -> datetime | None:
    return None if instant is None else min(instant, end)


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


def _unclosed(
    client: ClientFreshness,
    now: datetime,
    timezone: ZoneInfo,
    deadlines: Deadlines,
    to_be_closed: date,
) -> Iterator[tuple[Severity, str]]:
    midnight = day_start(to_be_closed + _ONE_DAY, timezone)
    # A client that was added later has no row of that day.
    is_due = client.first_date is not None and client.first_date <= to_be_closed
    if not is_due or (client.closing is not None and client.closing >= midnight):
        return
    # Midnight to the deadline is the allowed time; twice that is an error.
    allowed = timedelta(hours=deadlines.fresh_by.hour, minutes=deadlines.fresh_by.minute)
    yield _graded(now - midnight >= 2 * allowed), f"{to_be_closed} is not closed"


def _graded(twice: bool) -> Severity:
    return Severity.ERROR if twice else Severity.WARN
