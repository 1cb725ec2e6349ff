"""Whether webhooks bring what Email Bison counts."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from kpi_pipeline.checks.outcome import Check, Offender, Outcome, Severity, outcome
from kpi_pipeline.db.check_queries.delivery import LeadsOfDay, first_webhooks, read_leads
from kpi_pipeline.domain.calendar import business_date, day_start
from kpi_pipeline.domain.formatting import counted, listed

_ONE_DAY = timedelta(days=1)
_CLOSED_DAYS = 7
# A webhook that is still under way is none that was dropped.
_ON_ITS_WAY = timedelta(minutes=15)
# So many leads of one day are not the one that Email Bison counts on the day beside.
_CERTAINLY_SILENT = 3

_Found = tuple[Severity, Offender]


def webhooks_delivered(
    connection: Connection,
    instances: Collection[str],
    *,
    now: datetime,
    timezone: ZoneInfo,
    until: date,
) -> Outcome:
    """The leads of the last seven closed days, by client and day, and whether all are silent.

    `instances` are those whose webhooks have a secret, `until` is the last closed day. A comparison
    begins with the day after an instance's first webhook.
    """
    today = business_date(now, timezone)
    since = until - (_CLOSED_DAYS - 1) * _ONE_DAY
    first = first_webhooks(connection, instances)
    # With the day before and the days after: a lead may stand there on one side.
    leads = read_leads(connection, instances, since - _ONE_DAY, today)
    begins = {name: business_date(at, timezone) + _ONE_DAY for name, at in first.items()}
    silent = list(_silent(leads, begins, now=now, today=today))
    told_of = {(row["workspace"], row["day"]) for _, row in silent}
    found = [
        *silent,
        *_never_heard(leads, set(instances) - begins.keys(), today),
        *(
            (severity, row)
            for severity, row in _differing(leads, begins, timezone, since, until)
            if (row["workspace"], row["day"]) not in told_of
        ),
    ]
    names = list(dict.fromkeys(str(row["workspace"] or row["instance"]) for _, row in found))
    silent_instances = sorted({str(row["instance"]) for _, row in silent})
    return outcome(
        Check.WEBHOOKS_DELIVERED,
        [row for _, row in found],
        well="Webhooks brought each lead that Email Bison counted."
        if instances
        else "No webhooks are set up: no instance has a KPI_WEBHOOK_SECRET.",
        trouble=_SILENT.format(instances=" and ".join(silent_instances))
        if silent
        else f"Webhooks and Email Bison differ for {listed(names)}. {_ADVICE}",
        severity=Severity.ERROR if silent else Severity.WARN,
        numbers={"differing": len(found)},
    )


_SILENT = (
    "Email Bison counts leads, and no webhook of any client of {instances} tells of one. See that "
    "the gateway runs and can be reached from outside (`GET /healthz`), and that the address of "
    "the webhooks in Email Bison ends in the secret of KPI_WEBHOOK_SECRET_…: any other is refused. "
    "The numbers are made good by the hourly refresh; only their speed is lost."
)
_ADVICE = (
    "The numbers are right all the same, as the facts hold each lead: look at the webhooks of "
    "these workspaces in Email Bison, and at `kpi events list` for what came in and does not count."
)


def _silent(
    leads: Sequence[LeadsOfDay], begins: Mapping[str, date], *, now: datetime, today: date
) -> Iterator[_Found]:
    """Each instance of which no event came, though Email Bison counts leads today or yesterday."""
    for instance in sorted(begins):
        here = [it for it in leads if it.instance == instance]
        for day in (today, today - _ONE_DAY):
            settled = [it for it in here if it.day == day and it.counted and _is_settled(it, now)]
            if day < begins[instance] or not settled:
                continue
            total = sum(it.counted for it in settled)
            since = day if total >= _CERTAINLY_SILENT else day - _ONE_DAY
            if not any(it.told for it in here if it.day >= since):
                yield from ((Severity.ERROR, _row(it, it.counted, "silent")) for it in settled)
            break


def _never_heard(
    leads: Sequence[LeadsOfDay], instances: Collection[str], today: date
) -> Iterator[_Found]:
    """Instances whose webhooks have a secret, and of which not one ever came."""
    for instance in sorted(instances):
        here = [it for it in leads if it.instance == instance and it.day >= today - _ONE_DAY]
        total = sum(it.counted for it in here)
        if total:
            row: Offender = {
                "workspace": None,
                "instance": instance,
                "day": None,
                "counted": total,
                "brought": 0,
                "problem": "no webhook ever came: register them in Email Bison",
            }
            yield Severity.WARN, row


def _is_settled(leads: LeadsOfDay, now: datetime) -> bool:
    return leads.as_of is not None and now - leads.as_of > _ON_ITS_WAY


def _differing(
    leads: Sequence[LeadsOfDay],
    begins: Mapping[str, date],
    timezone: ZoneInfo,
    since: date,
    until: date,
) -> Iterator[_Found]:
    by_client: dict[str, list[LeadsOfDay]] = defaultdict(list)
    for it in leads:
        if it.instance in begins:
            by_client[it.workspace].append(it)
    for days in by_client.values():
        first = max(since, begins[days[0].instance])
        for it, alone in zip(days, _unmatched(days), strict=True):
            closed = it.as_of is not None and it.as_of >= day_start(it.day + _ONE_DAY, timezone)
            if alone and closed and first <= it.day <= until:
                problem = "not brought" if alone > 0 else "brought, and not counted"
                yield Severity.WARN, _row(it, abs(alone), problem)


def _unmatched(days: Sequence[LeadsOfDay]) -> list[int]:
    """How many leads of each day only Email Bison has, or, below 0, only events told of.

    Which zone bounds Email Bison's days is not known: a lead that one side has on the day beside is
    no other lead. So what is left over on two days can be one lead, if those between have leads
    that may have moved by a day as well.
    """
    left = [it.counted - it.told for it in days]
    movable = [min(it.counted, it.told) for it in days]
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


def _row(leads: LeadsOfDay, number: int, problem: str) -> Offender:
    return {
        "workspace": leads.workspace,
        "instance": leads.instance,
        "day": leads.day.isoformat(),
        "counted": leads.counted,
        "brought": leads.told,
        "problem": f"{counted(number, 'lead')} {problem}" if problem != "silent" else "silent",
    }
