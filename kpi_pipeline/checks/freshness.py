"""When a client's numbers are stale: the one rule of the check, the gateway and `kpi status`."""

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
    """By when yesterday is to be closed, in local time, and how old today's numbers may get."""

    fresh_by: time = time(6)
    stale_after: timedelta = timedelta(hours=3)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those that the settings name."""
        return cls(settings.fresh_by, settings.stale_after)

    def last_closed_day(self, now: datetime, timezone: ZoneInfo) -> date:
        """The last day whose numbers are to be final by `now`.

        Before the deadline, the night's sync may still be at it.
        """
        in_time = now.astimezone(timezone).time() < self.fresh_by
        return business_date(now, timezone) - (2 if in_time else 1) * _ONE_DAY


@dataclass(frozen=True)
class Standing:
    """How fresh a client is. `severity` is None where all is well, and `problems` are sentences.

    `as_of` is when the youngest facts were asked for that its rows are made of.
    """

    workspace: str
    as_of: datetime | None
    severity: Severity | None
    problems: Sequence[str]


def read_standings(
    connection: Connection, now: datetime, timezone: ZoneInfo, deadlines: Deadlines
) -> list[Standing]:
    """How fresh each active client is at `now`, by key."""
    to_be_closed = deadlines.last_closed_day(now, timezone)
    clients = read_freshness(connection, business_date(now, timezone), to_be_closed)
    return [_standing(it, now, timezone, deadlines, to_be_closed) for it in clients]


def freshness(
    standings: Sequence[Standing], now: datetime, timezone: ZoneInfo, deadlines: Deadlines
) -> Outcome:
    """What the check `freshness` finds: WARN when a client is late, ERROR past twice the time."""
    late = [it for it in standings if it.severity is not None]
    late.sort(key=lambda it: (it.severity is Severity.WARN, it.as_of or now, it.workspace))
    worst = Severity.ERROR if any(it.severity is Severity.ERROR for it in late) else Severity.WARN
    fresh = f"{len(standings) - len(late)} of {counted(len(standings), 'client')} fresh"
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
        well=f"{fresh}: today's numbers are younger than {duration(deadlines.stale_after)}, and "
        "the days before are closed.",
        trouble=f"{fresh}; stale: {listed([it.workspace for it in late])}. See that the last runs "
        "of daily_kpi_sync and hourly_refresh went well, on the page Runs, and mend what they "
        "name; then run `kpi sync`, or materialize yesterday and today of these clients.",
        severity=worst,
        numbers={"fresh": len(standings) - len(late), "clients": len(standings)},
    )


def _standing(
    client: ClientFreshness,
    now: datetime,
    timezone: ZoneInfo,
    deadlines: Deadlines,
    to_be_closed: date,
) -> Standing:
    as_of = _youngest(client, now, timezone)
    found = [
        *_aged(as_of, now, deadlines),
        *_unclosed(client, now, timezone, deadlines, to_be_closed),
    ]
    severities = [severity for severity, _ in found]
    worst = max(severities, key=list(Severity).index) if severities else None
    return Standing(client.workspace, as_of, worst, [text for _, text in found])


def _youngest(client: ClientFreshness, now: datetime, timezone: ZoneInfo) -> datetime | None:
    """Up to when its numbers tell what happened: a past day's row says nothing of the days after.

    So it gets no younger than the end of its day by being fetched anew.
    """
    midnight = day_start(business_date(now, timezone), timezone)
    told = [it for it in (client.of_today, _until(client.of_yesterday, midnight)) if it is not None]
    if told or client.last_date is None:
        return max(told, default=None)
    return _until(client.last_as_of, day_start(client.last_date + _ONE_DAY, timezone))


def _until(instant: datetime | None, end: datetime) -> datetime | None:
    return None if instant is None else min(instant, end)


def _aged(
    as_of: datetime | None, now: datetime, deadlines: Deadlines
) -> Iterator[tuple[Severity, str]]:
    if as_of is None:
        yield Severity.WARN, "there is no row of it yet"
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
    # A client that was added later has no such day.
    is_due = client.first_date is not None and client.first_date <= to_be_closed
    if not is_due or (client.closing is not None and client.closing >= midnight):
        return
    # The night had until the deadline; once more that long, and it is past twice the time.
    allowed = timedelta(hours=deadlines.fresh_by.hour, minutes=deadlines.fresh_by.minute)
    yield _graded(now - midnight >= 2 * allowed), f"{to_be_closed} is not closed"


def _graded(twice: bool) -> Severity:
    return Severity.ERROR if twice else Severity.WARN
