"""The checks of `webhook_events`: events count (`events_applied`), and webhooks deliver every
positive reply that Email Bison counts (`webhooks_delivered`).

In names of the code a lead is a positive reply, as in Email Bison's events.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from kpi_pipeline.checks.outcome import (
    MAX_PROBLEMS,
    Check,
    Outcome,
    ProblemRow,
    Severity,
    outcome,
)
from kpi_pipeline.db.check_queries.delivery import (
    DailyLeads,
    DroppedLeads,
    FeedReading,
    first_webhooks,
    read_dropped_leads,
    read_feed_readings,
    read_leads,
)
from kpi_pipeline.db.check_queries.events import EventProblem, ProblemEvents
from kpi_pipeline.domain.calendar import business_date, day_start
from kpi_pipeline.domain.formatting import counted, listed
from kpi_pipeline.domain.outside_names import visible

# The table shows so many of each kind; `kpi events list` has them all.
MAX_PER_KIND = MAX_PROBLEMS // len(EventProblem)

_WHAT_TO_DO = {
    EventProblem.SET_ASIDE: "fix what `kpi events list --status set_aside` names, then retry "
    "with `kpi events replay --status set_aside`",
    EventProblem.INVALID: "`kpi events list --status invalid` says what could not be parsed; `kpi "
    "events replay --status invalid` parses again after an upgrade",
    EventProblem.UNMATCHED: "import the client (`kpi clients import`), or delete the webhook of "
    "that workspace in Email Bison",
    EventProblem.WAITING: "check that Dagster's daemon is running and that webhook_event_sensor is "
    "on; `kpi events list --status received` shows why the last attempt failed",
}


def events_applied(found: Sequence[ProblemEvents]) -> Outcome:
    """No event is set aside, invalid, without a client, or waiting for too long."""
    parts = [
        f"{counted(it.events, 'event')} {it.problem}: {_WHAT_TO_DO[it.problem]}." for it in found
    ]
    problems = [
        {
            "problem": it.problem.value,
            "id": event.event_id,
            "type": visible(event.event_type or "unknown"),
            "client": event.client,
            "reason": event.reason or "",
        }
        for it in found
        for event in it.latest
    ]
    return Outcome(
        Check.EVENTS_APPLIED,
        "Some events are not in the numbers. " + " ".join(parts)
        if parts
        else "Every event that counts is in the numbers.",
        Severity.WARN,
        problems,
        sum(it.events for it in found) - len(problems),
        sorted({client for it in found for client in it.clients}),
        {it.problem.replace(" ", "_"): it.events for it in found},
    )


_ONE_DAY = timedelta(days=1)
_CLOSED_DAYS = 7
# A webhook may arrive this long after the lead; until then it does not count as dropped.
_DELIVERY_TIME = timedelta(minutes=15)
# The feed is tried every hour at the longest; one that was not read for longer has a problem.
_FEED_TRIED = timedelta(hours=2)
_FEED_LATE = timedelta(hours=1, minutes=15)
_IDS_SHOWN = 20
# Fewer leads of one day may be those that Email Bison counts on the adjacent day.
_CERTAINLY_SILENT = 3

_Found = tuple[Severity, ProblemRow]


def webhooks_delivered(
    connection: Connection,
    instances: Collection[str],
    *,
    now: datetime,
    timezone: ZoneInfo,
    until: date,
) -> Outcome:
    """Webhooks deliver the positive replies that Email Bison has, for seven closed days and today.

    `instances` are those whose webhooks have a secret, `until` is the last closed day. Where a
    client's event feed is read, its leads are compared one by one with what was delivered; else the
    leads that Email Bison counts are compared by closed day, beginning on the day after an
    instance's first webhook. An instance whose webhooks are all silent today, while leads are
    counted, is an ERROR.
    """
    today = business_date(now, timezone)
    readings = read_feed_readings(connection, now - _FEED_TRIED)
    with_feed = {it.workspace for it in readings if not _is_unread(it)}
    since = until - (_CLOSED_DAYS - 1) * _ONE_DAY
    first = first_webhooks(connection, instances)
    # With the day before and the days after: one side may date a lead there.
    leads = read_leads(connection, instances, since - _ONE_DAY, today)
    begins = {name: business_date(at, timezone) + _ONE_DAY for name, at in first.items()}
    silent = list(_silent(leads, begins, now=now, today=today))
    named = {(row["workspace"], row["day"]) for _, row in silent}
    counted_only = [it for it in leads if it.workspace not in with_feed]
    dropped = read_dropped_leads(connection, first, since, today, now - _DELIVERY_TIME)
    unread = [it for it in readings if _is_unread(it)]
    found = [
        *silent,
        *_never_received(leads, set(instances) - begins.keys(), today),
        *(
            (severity, row)
            for severity, row in (
                *_differing(counted_only, begins, timezone, since, until),
                *((Severity.WARN, _dropped(it)) for it in dropped if it.workspace in with_feed),
            )
            if (row["workspace"], row["day"]) not in named
        ),
    ]
    names = list(dict.fromkeys(str(row["workspace"] or row["instance"]) for _, row in found))
    found += [(Severity.WARN, _unread(it)) for it in unread]
    silent_instances = sorted({str(row["instance"]) for _, row in silent})
    return outcome(
        Check.WEBHOOKS_DELIVERED,
        [row for _, row in found],
        if_passed=_passed(instances, with_feed),
        if_failed=" ".join(_failed(silent_instances, names, [it.workspace for it in unread])),
        severity=Severity.ERROR if silent else Severity.WARN,
        numbers={"differing": len(found)},
    )


_SILENT = (
    "Email Bison counts positive replies, but no webhook of any client of {instances} reports one. "
    "Check that the gateway is running and reachable from outside (`GET /healthz`), and that the "
    "URL of the webhooks in Email Bison ends in the secret of KPI_WEBHOOK_SECRET_…: any other is "
    "rejected. "
    "The next refresh corrects the numbers; they only arrive later."
)
_ADVICE = (
    "The numbers are right, as the facts hold every positive reply: check the webhooks of "
    "{whose} in Email Bison, and `kpi events list` for events that do not count."
)
_UNREAD = (
    "The event feed of {names} was not read for an hour: positive replies that no webhook delivers "
    "arrive with the next refresh. The table says why; KPI_EVENT_FEED_MINUTES=off leaves the feed "
    "alone."
)


def _passed(instances: Collection[str], with_feed: Collection[str]) -> str:
    if instances:
        return "Webhooks delivered every positive reply that Email Bison counted."
    none = "No instance has a KPI_WEBHOOK_SECRET, so no webhooks are set up."
    return f"{none} The event feed brings the positive replies." if with_feed else none


def _failed(silent: Sequence[str], names: Sequence[str], unread: Sequence[str]) -> Iterator[str]:
    if silent:
        yield _SILENT.format(instances=" and ".join(silent))
    elif names:
        whose = "this workspace" if len(names) == 1 else "these workspaces"
        yield f"Webhooks and Email Bison differ for {listed(names)}. {_ADVICE.format(whose=whose)}"
    if unread:
        yield _UNREAD.format(names=listed(unread))


def _is_unread(reading: FeedReading) -> bool:
    """Whether the feed is tried, and fails for an hour: one that is switched off is not."""
    return reading.read_at is None or reading.tried_at - reading.read_at > _FEED_LATE


def _unread(reading: FeedReading) -> ProblemRow:
    return {
        "workspace": reading.workspace,
        "instance": reading.instance,
        "day": None,
        "counted": None,
        "delivered": None,
        "problem": reading.problem or "its event feed was not read",
    }


def _dropped(leads: DroppedLeads) -> ProblemRow:
    ids = ", ".join(map(str, leads.events[:_IDS_SHOWN]))
    more = len(leads.events) - _IDS_SHOWN
    named = f"{'event' if len(leads.events) == 1 else 'events'} {ids}"
    named += f" and {more} more" if more > 0 else ""
    return {
        "workspace": leads.workspace,
        "instance": leads.instance,
        "day": leads.day.isoformat(),
        "counted": leads.listed,
        "delivered": leads.delivered,
        "problem": f"{counted(len(leads.events), 'positive reply')} not delivered: {named}",
    }


def _silent(
    leads: Sequence[DailyLeads], begins: Mapping[str, date], *, now: datetime, today: date
) -> Iterator[_Found]:
    """Instances without any event, though Email Bison counts leads today or yesterday."""
    for instance in sorted(begins):
        here = [it for it in leads if it.instance == instance]
        for day in (today, today - _ONE_DAY):
            settled = [it for it in here if it.day == day and it.counted and _is_settled(it, now)]
            if day < begins[instance] or not settled:
                continue
            total = sum(it.counted for it in settled)
            since = day if total >= _CERTAINLY_SILENT else day - _ONE_DAY
            if not any(it.delivered for it in here if it.day >= since):
                yield from ((Severity.ERROR, _row(it, it.counted, "silent")) for it in settled)
            break


def _never_received(
    leads: Sequence[DailyLeads], instances: Collection[str], today: date
) -> Iterator[_Found]:
    """Instances whose webhooks have a secret, but never sent one."""
    for instance in sorted(instances):
        here = [it for it in leads if it.instance == instance and it.day >= today - _ONE_DAY]
        total = sum(it.counted for it in here)
        if total:
            row: ProblemRow = {
                "workspace": None,
                "instance": instance,
                "day": None,
                "counted": total,
                "delivered": 0,
                "problem": "no webhook ever arrived: register them in Email Bison",
            }
            yield Severity.WARN, row


def _is_settled(leads: DailyLeads, now: datetime) -> bool:
    return leads.as_of is not None and now - leads.as_of > _DELIVERY_TIME


def _differing(
    leads: Sequence[DailyLeads],
    begins: Mapping[str, date],
    timezone: ZoneInfo,
    since: date,
    until: date,
) -> Iterator[_Found]:
    by_client: dict[str, list[DailyLeads]] = defaultdict(list)
    for it in leads:
        if it.instance in begins:
            by_client[it.workspace].append(it)
    for days in by_client.values():
        first = max(since, begins[days[0].instance])
        for it, alone in zip(days, _unmatched(days), strict=True):
            closed = it.as_of is not None and it.as_of >= day_start(it.day + _ONE_DAY, timezone)
            if alone and closed and first <= it.day <= until:
                problem = "not delivered" if alone > 0 else "delivered, but not counted"
                yield Severity.WARN, _row(it, abs(alone), problem)


def _unmatched(days: Sequence[DailyLeads]) -> list[int]:
    """Leads of each day that only Email Bison counts (above 0) or only events report (below 0).

    Which zone bounds Email Bison's days is not known, so a lead that the other side has on an
    adjacent day is the same lead. A surplus and a deficit on two days cancel out if each day
    between them has leads that may have moved by a day as well.
    """
    left = [it.counted - it.delivered for it in days]
    movable = [min(it.counted, it.delivered) for it in days]
    for here in range(len(days)):
        reach = abs(left[here])
        for there in range(here + 1, len(days)):
            if not reach or days[there].day - days[there - 1].day != _ONE_DAY:
                break
            if left[here] * left[there] < 0:
                moved = min(reach, abs(left[there]))
                sign = 1 if left[here] > 0 else -1
                left[here] -= sign * moved
                left[there] += sign * moved
                for between in range(here + 1, there):
                    movable[between] -= moved
                reach -= moved
            reach = min(reach, movable[there])
    return left


def _row(leads: DailyLeads, number: int, problem: str) -> ProblemRow:
    return {
        "workspace": leads.workspace,
        "instance": leads.instance,
        "day": leads.day.isoformat(),
        "counted": leads.counted,
        "delivered": leads.delivered,
        "problem": f"{counted(number, 'positive reply')} {problem}"
        if problem != "silent"
        else "silent",
    }
