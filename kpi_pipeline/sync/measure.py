"""Measures how each Email Bison instance counts, with the events and the series of one client."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import BisonClient, BisonError, WorkspaceReader
from kpi_pipeline.bison.calls import Call
from kpi_pipeline.bison.events import EVENTS_PATH, read_events
from kpi_pipeline.bison.series import SeriesDays, days_of
from kpi_pipeline.db.day_zone import adopt_measured_zone
from kpi_pipeline.db.events.feed import instances_without_feed
from kpi_pipeline.db.findings import (
    Finding,
    activity,
    read_findings,
    read_series,
    store_findings,
    store_series,
)
from kpi_pipeline.db.registry.clients import Client, active_clients, pick_clients
from kpi_pipeline.db.server.retry import retry_on_disconnect
from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.domain.events.event import EventSource
from kpi_pipeline.domain.events.parse import parse_event
from kpi_pipeline.domain.events.times import TimedEvent, timed_event
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.domain.measure import (
    Answer,
    Comparison,
    Series,
    Subject,
    candidate_zones,
    compare,
    quiet_days,
    revised_since,
)
from kpi_pipeline.errors import KpiError
from kpi_pipeline.sync.feed_due import FEED_DAYS, FEED_TYPES
from kpi_pipeline.sync.fetch import report_unknown_fields
from kpi_pipeline.sync.identity import read_client

# Of one type: 200 pages. The largest client has fewer in ten days.
_MOST_ROWS = 3_000
_SERIES_DAYS = 60
# The nightly run is repeated after an error.
_MEASURED_FOR = timedelta(hours=20)
_SERIES_PATH = "/api/workspaces/v1.1/line-area-chart-stats"
_log = logging.getLogger(__name__)
_COUNTS = ("sent", "replied", "interested", "bounced", "unsubscribed")


@dataclass
class Measured:
    """What was measured of one instance, with the feed and series of `workspace`.

    `days` and `events` are numbers of what was compared. `notes` are sentences about what was left
    out. If `problem` says why nothing could be measured, there are no findings.
    """

    instance: str
    workspace: str | None = None
    days: int = 0
    events: int = 0
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: str | None = None


def measure_if_due(app: AppContext) -> list[Measured]:
    """Measure those instances that have a feed and were not measured within the last 20 hours.

    None is if the event feed is off.
    """
    if app.settings.event_feed_minutes is None:
        return []
    with app.engine.connect() as connection:
        now = app.now()
        done = instances_without_feed(connection, now) | {
            it.instance
            for it in read_findings(connection)
            if now - _MEASURED_FOR <= it.measured_at <= now
        }
        clients = [it for it in _busiest(app, connection) if it.instance not in done]
    return asyncio.run(_measure_all(app, clients))


def measure_bison(app: AppContext, workspaces: Sequence[str] = ()) -> list[Measured]:
    """Measure each instance with one client's feed and series, and store what was found.

    It is the client of `workspaces`, or else the busiest one, of those with an API key if there are
    any. An instance that can't be measured stops no other.

    Raises:
        KpiError: if a workspace is unknown or its client inactive, two are of one instance, or no
            active client's instance is configured.
    """
    with app.engine.connect() as connection:
        clients = pick_clients(connection, workspaces) if workspaces else _busiest(app, connection)
    if not clients:
        raise KpiError("There is no active client of a configured instance to measure with.")
    if len({it.instance for it in clients}) < len(clients):
        raise KpiError("Name one client of each instance: its days alone are compared.")
    return asyncio.run(_measure_all(app, clients))


def adopt_if_empty(app: AppContext) -> ZoneInfo | None:
    """Make the measured zone that of all dates, if none is stored yet and no setting names one.

    Returns the zone if it was adopted. It is not where instances differ or one is undecided.
    """
    if app.settings.bison_timezone is not None:
        return None
    with app.engine.connect() as connection:
        findings = read_findings(connection)
        used = {it.instance for it in active_clients(connection)}
    found = {it.instance: it.value for it in findings if it.subject is Subject.DAY_ZONE}
    zones = {found.get(name) for name in used}
    name = zones.pop() if len(zones) == 1 else None
    zone = None if name is None else ZoneInfo(name)
    return zone if zone is not None and adopt_measured_zone(app.engine, zone) else None


def _busiest(app: AppContext, connection: Connection) -> list[Client]:
    """One active client of each configured instance that an API key covers."""
    busy = activity(connection, app.today() - timedelta(days=FEED_DAYS))
    has_master = {it.name: it.master_key is not None for it in app.instances().values()}
    served = [
        it
        for it in active_clients(connection)
        if it.instance in has_master and (it.has_key or has_master[it.instance])
    ]
    # Calls with the master key would keep the clients without a key waiting.
    served.sort(key=lambda it: (it.has_key, busy.get(it.workspace, (0, 0))))
    return list({it.instance: it for it in served}.values())


@dataclass(frozen=True)
class _Read:
    """What was read of one client: the series, and the feed from `since` on.

    `listed` are the days that the answer lists. `events` are of the types that were read whole.
    """

    since: datetime
    as_of: datetime
    series: Series
    listed: frozenset[date]
    events: Sequence[TimedEvent]
    notes: Sequence[str]


async def _measure_all(app: AppContext, clients: Sequence[Client]) -> list[Measured]:
    results = []
    async with AsyncExitStack() as stack:
        for client in clients:
            try:
                bison = await stack.enter_async_context(
                    app.bison_client(app.instance(client.instance))
                )
                results.append(await _measure(app, bison, client))
                report_unknown_fields(app, client.instance, bison.unknown_fields)
            except BisonError as error:
                problem = str(error)
                if error.status == 404 and EVENTS_PATH in error.call:
                    problem = f"{client.instance} has no event feed, so nothing can be measured."
                results.append(Measured(client.instance, client.workspace, problem=problem))
            except KpiError as error:
                results.append(Measured(client.instance, client.workspace, problem=str(error)))
            except Exception as error:  # noqa: BLE001 - no instance may stop the others
                _log.exception("%s could not be measured", client.instance)
                problem = f"{client.instance}: {type(error).__name__}; see the log"
                results.append(Measured(client.instance, client.workspace, problem=problem))
    return results


async def _measure(app: AppContext, bison: BisonClient, client: Client) -> Measured:
    read = await read_client(app, bison, client, partial(_read, app, client))
    named = [it.local_zone for it in read.events if it.local_zone]
    zones = candidate_zones((app.day_zone, app.timezone), named, read.as_of)
    comparison = compare(read.events, read.series, since=read.since, until=read.as_of, zones=zones)
    store = partial(_store, app, client, read, comparison)
    findings = await asyncio.to_thread(retry_on_disconnect, store)
    notes = list(read.notes)
    if comparison.day_zone().value in named:
        notes.append(
            "This client's events name that zone as local. If other clients' name another, measure "
            "with one of them, too (-w): each workspace may have its own."
        )
    return Measured(
        client.instance,
        client.workspace,
        len(comparison.days),
        len(comparison.events),
        findings,
        notes,
    )


async def _read(app: AppContext, client: Client, reader: WorkspaceReader) -> _Read:
    now, last = app.now(), app.today()
    since = now.astimezone(UTC) - timedelta(days=FEED_DAYS)
    first = last - timedelta(days=_SERIES_DAYS - 1)
    period: dict[str, str | int] = {"start_date": str(first), "end_date": str(last)}

    def decode(body: Any) -> tuple[SeriesDays, frozenset[date]]:
        # Whether a day of zeros was listed is no part of the days.
        days = days_of(body, first, last)
        lines = (line["dates"] for line in body["data"] if line["label"] == "Sent")
        return days, frozenset(date.fromisoformat(day) for dates in lines for day, _ in dates)

    answered = await reader.session.call(Call("GET", _SERIES_PATH, period), decode)
    answer, listed_days = answered.value
    # Afterwards: what is recorded meanwhile is left out.
    events: list[TimedEvent] = []
    notes = []
    for event_type in FEED_TYPES:
        part = await read_events(
            reader.session,
            (event_type,),
            since.date() - timedelta(days=1),
            max(now.date(), last),
            since=since,
            most_rows=_MOST_ROWS,
        )
        if not part.complete:
            notes.append(
                f"Events of the type {event_type} are left out: the feed has more than "
                f"{_MOST_ROWS:,} rows{'' if part.filtered else ', as it ignores the type'}."
            )
            if not part.filtered:
                # Each walk would pass the same rows.
                break
            continue
        bodies = [it.body for it in part.events]
        events += _timed(client, event_type, bodies, now, app.day_zone)
    return _Read(
        since,
        answered.sent_at,
        {day: asdict(counts) for day, counts in answer.days.items()},
        listed_days,
        events,
        notes,
    )


def _timed(
    client: Client, event_type: str, bodies: Sequence[bytes], now: datetime, zone: ZoneInfo
) -> list[TimedEvent]:
    """The events of the client, each once, as it was first recorded."""
    earliest: dict[str, tuple[datetime, bytes]] = {}
    for body in bodies:
        event = parse_event(
            body,
            instance=client.instance,
            source=EventSource.FEED,
            arrived_at=now,
            tz=zone,
        )
        if event.bison_workspace_id != client.bison_workspace_id or event.metric is None:
            continue
        at, key = event.recorded_at, event.idempotency_key
        if at is not None and (key not in earliest or at < earliest[key][0]):
            earliest[key] = at, body
    return [timed_event(body, event_type, at) for at, body in earliest.values()]


def _store(app: AppContext, client: Client, read: _Read, compared: Comparison) -> list[Finding]:
    """Store the findings and the series; return all findings of the instance."""
    zone_answer = compared.day_zone()
    possible = [it for it in compared.zones if it.key in zone_answer.possible]
    answers = {
        Subject.DAY_ZONE: zone_answer,
        Subject.LEADS_COUNT_BY: compared.leads_count_by(possible or compared.zones),
        Subject.QUIET_DAYS: quiet_days(read.series, read.listed),
    }
    zone = possible[0] if len(possible) == 1 else app.day_zone
    today = business_date(read.as_of, zone)
    counts = {
        day: {name: it[name] for name in _COUNTS} for day, it in read.series.items() if day <= today
    }
    with app.engine.begin() as connection:
        before = read_series(connection, client.workspace)
        seen = [
            compared.revised_age(zone) if zone_answer.value else None,
            revised_since(before[1], counts, before[0]) if before else None,
        ]
        age = max((it for it in seen if it is not None), default=None)
        findings = [_finding(app, client, subject, it) for subject, it in answers.items()]
        findings.append(_of_age(app, client, age, compared=before is not None))
        store_findings(connection, findings)
        store_series(connection, client.workspace, today, counts)
        return [it for it in read_findings(connection) if it.instance == client.instance]


def _finding(app: AppContext, client: Client, subject: Subject, answer: Answer) -> Finding:
    return Finding(
        client.instance,
        subject,
        client.workspace,
        app.now(),
        answer.possible,
        answer.evidence(),
        answer.value,
    )


def _of_age(app: AppContext, client: Client, age: int | None, *, compared: bool) -> Finding:
    if age is not None:
        evidence = f"a day that was {counted(age, 'day')} old was revised"
    elif compared:
        evidence = "no day was revised since the last measurement"
    else:
        evidence = "no event shows a revision; the next measurement compares the series with now"
    possible = () if age is None else (str(age),)
    value = None if age is None else str(age)
    return Finding(
        client.instance,
        Subject.REVISED_AGE,
        client.workspace,
        app.now(),
        possible,
        evidence,
        value,
    )
