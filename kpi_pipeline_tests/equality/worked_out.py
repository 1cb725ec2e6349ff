"""Every stored row, worked out day by day from the stored inputs: no code of the pipeline's."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text

DAY = timedelta(days=1)
COUNTS = ("sent", "replied", "interested", "bounced", "unsubscribed")
SENT, LEADS = COUNTS.index("sent"), COUNTS.index("interested")
NOT_COMPARED = {"updated_at", "source", "metric_type"}

Key = tuple[str, date]


class Inputs(NamedTuple):
    """What the tables hold; counts are those of facts with the events that count beyond them.

    They are in the order of COUNTS, by client and the ordinal of the day.
    """

    counts: Mapping[str, Mapping[int, list[int]]]
    as_of: Mapping[Key, datetime]
    events_alone: Mapping[Key, list[int]]
    targets: list[Any]
    plans: Mapping[Key, Any]
    labels: Mapping[str, Any]


def differences(connection: Connection, zone: ZoneInfo) -> list[tuple[Any, ...]]:
    """Each cell that is not what it should be: table, client, date, column, stored, right."""
    inputs = _read(connection)
    found: list[tuple[Any, ...]] = []
    right: dict[Key, dict[str, Any]] = {}
    for table in ("kpi_projections", "client_metrics"):
        for stored in connection.execute(text(f"SELECT * FROM {table}")).mappings():
            key = stored["workspace"], stored["metric_date"]
            if key not in right:
                right[key] = _row(inputs, *key, zone)
            expected = right[key]
            found += [
                (table, *key, name, value, expected[name])
                for name, value in stored.items()
                if name not in NOT_COMPARED and value != expected[name]
            ]
    return found


def _read(connection: Connection) -> Inputs:
    def rows(statement: str) -> list[Any]:
        return list(connection.execute(text(statement)))

    as_of: dict[Key, datetime] = {}
    counts: defaultdict[str, dict[int, list[int]]] = defaultdict(dict)
    for it in rows("SELECT * FROM raw_bison_stats"):
        as_of[it.workspace, it.date] = it.as_of
        counts[it.workspace][it.date.toordinal()] = [getattr(it, name) for name in COUNTS]
    alone: defaultdict[Key, list[int]] = defaultdict(lambda: [0] * len(COUNTS))
    for it in rows("SELECT * FROM webhook_events WHERE status = 'applied'"):
        key, number = (it.workspace, it.business_date), COUNTS.index(it.metric)
        if key not in as_of:
            alone[key][number] += 1
        elif (it.happened_at or it.arrived_at) > as_of[key]:
            counts[it.workspace][it.business_date.toordinal()][number] += 1
    return Inputs(
        counts,
        as_of,
        alone,
        rows("SELECT * FROM client_targets ORDER BY holds_from"),
        {(it.workspace, it.date): it for it in rows("SELECT * FROM sending_plans")},
        {it.workspace: it for it in rows("SELECT * FROM clients")},
    )


def _row(inputs: Inputs, workspace: str, day: date, zone: ZoneInfo) -> dict[str, Any]:
    key = workspace, day
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
    as_of = inputs.as_of.get(key, midnight)
    known, ordinal = inputs.counts[workspace], day.toordinal()
    if ordinal not in known:
        # It counts in its own row alone.
        known = {**known, ordinal: inputs.events_alone.get(key, [0] * len(COUNTS))}

    def totals(first: int, last: int) -> list[int] | list[None]:
        """The sums of the days with these ordinals; nothing if one of them is unknown."""
        days = [known.get(it) for it in range(first, last + 1)]
        if None in days:
            return [None] * len(COUNTS)
        return [sum(column) for column in zip(*days, strict=True)]

    first = day.replace(day=1)
    sent, replied, leads, bounced, unsubscribed = totals(first.toordinal(), ordinal)
    windows = {}
    for n in (7, 14, 30):
        window = totals(ordinal - n + 1, ordinal)
        windows[f"emails_sent_last_{n}_days"] = window[SENT]
        windows[f"positive_replies_last_{n}_days"] = window[LEADS]
    last_month = totals((first - DAY).replace(day=1).toordinal(), first.toordinal() - 1)
    week, fortnight = (windows[f"positive_replies_last_{n}_days"] for n in (7, 14))
    before = None if week is None or fortnight is None else fortnight - week
    kpi_target = sending_target = None
    for target in inputs.targets:
        if target.workspace == workspace and target.holds_from <= day:
            kpi_target = target.monthly_kpi_target
            sending_target = target.monthly_sending_target
    share = _share_of_month(day, as_of, midnight, zone)
    projected, emails = (None if it is None else _half_up(it / share) for it in (leads, sent))
    plan, label = inputs.plans.get(key), inputs.labels[workspace]
    return {
        "workspace": workspace,
        "metric_date": day,
        "workspace_name": label.name,
        "display_name": label.display_name or label.name,
        "as_of": as_of,
        "emails_sent_mtd": sent,
        "positive_replies_mtd": leads,
        "all_replies_mtd": replied,
        "bounced_mtd": bounced,
        "unsubscribed_mtd": unsubscribed,
        "emails_sent_today": known[ordinal][SENT],
        "positive_replies_today": known[ordinal][LEADS],
        **windows,
        "positive_replies_last_month": last_month[LEADS],
        "positive_replies_current_month": leads,
        "projection_positive_replies_eom": projected,
        "projection_emails_eom": emails,
        "mtd_leads_progress": _percent(leads, kpi_target),
        "projection_replies_progress": _percent(projected, kpi_target),
        "sending_progress": _percent(sent, sending_target),
        "projection_sending_progress": _percent(emails, sending_target),
        "reply_rate_mtd": _percent(replied, sent),
        "positive_rate_mtd": _percent(leads, sent),
        "bounce_rate_mtd": _percent(bounced, sent),
        "last_week_vs_week_before_progress": (
            None if week is None or before is None else _percent(week - before, before)
        ),
        "monthly_kpi_target": kpi_target,
        "monthly_sending_target": sending_target,
        "emails_scheduled_today": plan and plan.emails_scheduled_today,
        "emails_scheduled_tomorrow": plan and plan.emails_scheduled_tomorrow,
    }


def _share_of_month(day: date, as_of: datetime, midnight: datetime, zone: ZoneInfo) -> Fraction:
    """The part of the month that had passed at `as_of`; at least one day of it."""
    after = day + DAY
    end = datetime(after.year, after.month, after.day, tzinfo=zone).astimezone(UTC)
    passed = min(
        max(int((as_of - midnight).total_seconds()), 0), int((end - midnight) / DAY * 86400)
    )
    elapsed = max(
        day.day - 1 + Fraction(passed, round((end - midnight) / DAY * 86400)), Fraction(1)
    )
    length = ((day.replace(day=28) + 4 * DAY).replace(day=1) - DAY).day
    return elapsed / length


def _half_up(number: Fraction) -> int:
    return int(number + Fraction(1, 2))


def _percent(part: int | None, whole: int | None) -> Decimal | None:
    if part is None or not whole:
        return None
    # Decimal's own rounding, away from zero at the half.
    return (Decimal(part) * 100 / Decimal(whole)).quantize(Decimal("0.01"), ROUND_HALF_UP)
