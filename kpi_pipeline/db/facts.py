"""Stores and reads what the numbers are computed from: daily facts, sending plans, targets."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, any_, bindparam, delete, func, or_, select, text
from sqlalchemy.types import ARRAY, Text

from kpi_pipeline.db.tables import (
    client_metrics,
    client_targets,
    kpi_projections,
    raw_bison_stats,
    sending_plans,
)
from kpi_pipeline.db.upsert import upsert
from kpi_pipeline.domain.columns import FACT_COUNTS
from kpi_pipeline.domain.metrics import DailyFact, Target

_WORKSPACES = bindparam("workspaces", type_=ARRAY(Text))
# In the order of the fields of DailyFact, and of Target.
_FACTS = select(
    *(raw_bison_stats.c[name] for name in ("workspace", "date", *FACT_COUNTS, "as_of"))
).where(
    raw_bison_stats.c.workspace == any_(_WORKSPACES),
    raw_bison_stats.c.date.between(bindparam("first"), bindparam("last")),
)
_TARGETS = select(
    client_targets.c.workspace,
    client_targets.c.holds_from,
    client_targets.c.monthly_kpi_target,
    client_targets.c.monthly_sending_target,
).where(client_targets.c.workspace == any_(_WORKSPACES))


@dataclass(frozen=True)
class SendingPlan:
    """How many emails Bison planned for `date` and for the next day, asked on `date`.

    Both are None if the plan could not be read.
    """

    date: date
    today: int | None
    tomorrow: int | None
    as_of: datetime


def store_facts(
    connection: Connection,
    workspace: str,
    days: Mapping[date, Mapping[str, int | None]],
    as_of: datetime,
) -> None:
    """Write a client's daily facts, except where the stored row was asked for after `as_of`.

    Each given day is replaced by its new row or left; no day is deleted.
    """
    rows = [
        {"workspace": workspace, "date": day, **counts, "as_of": as_of}
        for day, counts in days.items()
    ]
    upsert(connection, raw_bison_stats, rows, newer="as_of")


def store_plan(connection: Connection, workspace: str, plan: SendingPlan) -> None:
    """Write a client's sending plan of one day."""
    row = {
        "workspace": workspace,
        "date": plan.date,
        "emails_scheduled_today": plan.today,
        "emails_scheduled_tomorrow": plan.tomorrow,
        "as_of": plan.as_of,
    }
    upsert(connection, sending_plans, [row], newer="as_of")


def plan_requested_at(connection: Connection, workspace: str, day: date) -> datetime | None:
    """When a client's sending plan of one day was last requested, whether it was read or not."""
    return connection.scalar(
        select(sending_plans.c.as_of).where(
            sending_plans.c.workspace == workspace, sending_plans.c.date == day
        )
    )


def delete_future_facts(
    connection: Connection, workspace: str, first: date, last: date, now: datetime
) -> None:
    """Delete facts and plans of these days that claim to be asked for after `now`.

    A clock ran ahead. Newer ones replace older ones, so these would keep out all others until that
    instant.
    """
    plans, facts = (
        delete(table).where(
            table.c.workspace == workspace,
            table.c.date.between(first, last),
            table.c.as_of > now,
        )
        for table in (sending_plans, raw_bison_stats)
    )
    connection.execute(facts.add_cte(plans.cte("plans")))


def has_counts(connection: Connection, workspace: str, first: date, last: date) -> bool:
    """Whether any count is stored in a client's facts of the days `first` … `last`."""
    statement = select(func.count()).where(
        raw_bison_stats.c.workspace == workspace,
        raw_bison_stats.c.date.between(first, last),
        or_(*(raw_bison_stats.c[name] > 0 for name in FACT_COUNTS)),
    )
    return bool(connection.scalar(statement))


def read_facts(
    connection: Connection, workspaces: Collection[str], first: date, last: date
) -> list[DailyFact]:
    """The stored facts of these clients' days `first` … `last`, without any event."""
    period = {"workspaces": list(workspaces), "first": first, "last": last}
    return [DailyFact(*row) for row in connection.execute(_FACTS, period)]


def read_targets(connection: Connection, workspaces: Collection[str]) -> list[Target]:
    """The history of these clients' targets."""
    found = connection.execute(_TARGETS, {"workspaces": list(workspaces)})
    return [Target(*row) for row in found]


def are_known_since(
    connection: Connection,
    workspace: str,
    first: date,
    last: date,
    moment: datetime,
    now: datetime,
) -> bool:
    """Whether each of the days `first` … `last` has facts asked for from `moment` to `now`."""
    statement = select(func.count()).where(
        raw_bison_stats.c.workspace == workspace,
        raw_bison_stats.c.date.between(first, last),
        raw_bison_stats.c.as_of.between(moment, now),
    )
    return connection.scalar(statement) == (last - first).days + 1


# A day is closed if its facts were asked for when it was over, and not later than now.
_OLDEST_OPEN_DAY = text("""
    SELECT w.workspace, least(
        (
            SELECT min(d.day)::date
            FROM (SELECT min(date) AS day FROM raw_bison_stats WHERE workspace = w.workspace) b
            CROSS JOIN generate_series(
                greatest(b.day, CAST(:since AS date)), CAST(:until AS date), interval '1 day'
            ) AS d(day)
            LEFT JOIN raw_bison_stats f ON f.workspace = w.workspace AND f.date = d.day::date
            WHERE b.day IS NOT NULL AND (
                f.as_of IS NULL OR f.as_of > :now
                OR f.as_of < (f.date + 1)::timestamp AT TIME ZONE CAST(:zone AS text)
            )
        ),
        (
            SELECT min(d.day)::date
            FROM (SELECT min(metric_date) AS day FROM client_metrics WHERE workspace = w.workspace)
                AS b
            CROSS JOIN generate_series(
                greatest(b.day, CAST(:since AS date)), CAST(:until AS date), interval '1 day'
            ) AS d(day)
            LEFT JOIN client_metrics r ON r.workspace = w.workspace AND r.metric_date = d.day::date
                AND r.metric_type = 'mtd'
            WHERE b.day IS NOT NULL AND r.workspace IS NULL
        )
    ) AS day
    FROM unnest(:workspaces) AS w(workspace)
""").bindparams(bindparam("workspaces", type_=ARRAY(Text)))


def oldest_open_days(
    connection: Connection,
    workspaces: Collection[str],
    since: date,
    until: date,
    zone: ZoneInfo,
    now: datetime,
) -> dict[str, date]:
    """The oldest day from `since` to `until` that is not closed, of each client that has one.

    Its facts are missing, were asked for before the day was over or after `now`, or its row is
    missing. A client's days begin with its first facts, and its rows with its first row.
    """
    values = {
        "workspaces": list(workspaces),
        "since": since,
        "until": until,
        "zone": zone.key,
        "now": now,
    }
    rows = connection.execute(_OLDEST_OPEN_DAY, values)
    return {workspace: day for workspace, day in rows if day is not None}


_ROWS = {
    raw_bison_stats.name: select(raw_bison_stats.c.workspace, raw_bison_stats.c.date.label("day")),
    kpi_projections.name: select(
        kpi_projections.c.workspace, kpi_projections.c.metric_date.label("day")
    ),
    client_metrics.name: select(
        client_metrics.c.workspace, client_metrics.c.metric_date.label("day")
    ).where(client_metrics.c.metric_type == "mtd"),
}


def stored_days(
    connection: Connection, table: str, workspaces: Collection[str], first: date, last: date
) -> dict[str, set[date]]:
    """The days from `first` to `last` that have a row in `table`, by workspace; one query.

    `table` is one of raw_bison_stats, kpi_projections and client_metrics.
    """
    rows = _ROWS[table].subquery()
    statement = select(rows.c.workspace, rows.c.day).where(
        rows.c.workspace.in_(workspaces), rows.c.day.between(first, last)
    )
    found: defaultdict[str, set[date]] = defaultdict(set)
    for workspace, day in connection.execute(statement):
        found[workspace].add(day)
    return dict(found)
