"""Overlay queries: events not yet in the facts, the rows they affect, and marking them applied."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.types import ARRAY, Date, Text

from kpi_pipeline.domain.events.overlay import CountedEvents

# Events are looked up day by day, each day's from the `as_of` of its facts on: the facts hold most
# of a month's events, and these need not be read.
_COUNTED = text("""
    SELECT w.workspace, d.day::date AS date, e.metric, count(*) AS events
    FROM unnest(:workspaces) AS w(workspace)
    CROSS JOIN generate_series(CAST(:first AS date), CAST(:last AS date), interval '1 day')
        AS d(day)
    LEFT JOIN raw_bison_stats f ON f.workspace = w.workspace AND f.date = d.day::date
    CROSS JOIN LATERAL (
        SELECT metric FROM webhook_events
        WHERE workspace = w.workspace AND business_date = d.day::date
          AND status IN ('received', 'applied')
          AND arrived_at > coalesce(f.as_of, '-infinity')
        OFFSET 0
    ) e
    GROUP BY w.workspace, d.day, e.metric
""").bindparams(bindparam("workspaces", type_=ARRAY(Text)))

# A day's facts affect the rows up to the end of the next month, where they are "last month".
_LAST_ROW = "(date_trunc('month', e.business_date) + interval '2 months - 1 day')::date"

# Today's row may exist with events alone; events of earlier days affect it as well.
_SHOWS_TODAY = f"""
    e.business_date <= :today AND :today <= {_LAST_ROW} AND EXISTS (
        SELECT 1 FROM webhook_events t
        WHERE t.workspace = e.workspace AND t.business_date = :today
          AND t.status IN ('received', 'applied')
    )
"""  # noqa: S608 - no part of it comes from outside

_AFFECTED = text(f"""
    SELECT e.workspace, f.date
    FROM webhook_events e
    JOIN raw_bison_stats f ON f.workspace = e.workspace
     AND f.date BETWEEN e.business_date AND least(:today, {_LAST_ROW})
    WHERE e.status = 'received' AND e.business_date IS NOT NULL
      AND e.workspace = ANY(:workspaces)
    UNION
    SELECT e.workspace, CAST(:today AS date)
    FROM webhook_events e
    WHERE e.status = 'received' AND e.workspace = ANY(:workspaces) AND {_SHOWS_TODAY}
    ORDER BY 1, 2
""")  # noqa: S608 - as above

_MARK_APPLIED = text(f"""
    UPDATE webhook_events e
    SET status = 'applied', applied_at = :now, reason = NULL, next_try_at = NULL
    WHERE e.workspace = ANY(:workspaces) AND e.status = 'received'
      AND e.business_date <= :today
      AND (:today = ANY(:dates) OR NOT ({_SHOWS_TODAY}))
      AND NOT EXISTS (
        SELECT 1 FROM raw_bison_stats f
        WHERE f.workspace = e.workspace
          AND f.date BETWEEN e.business_date AND least(:today, {_LAST_ROW})
          AND NOT f.date = ANY(:dates)
      )
""").bindparams(bindparam("dates", type_=ARRAY(Date)))  # noqa: S608 - as above


@dataclass(frozen=True)
class Pending:
    """A client's pending events (stored, not applied): their number and first business date.

    `last_event` is the highest of their ids, `tries` the highest number of failed tries.
    """

    workspace: str
    first_date: date
    events: int
    last_event: int
    tries: int


def read_counted_events(
    connection: Connection, workspaces: Collection[str], first: date, last: date
) -> list[CountedEvents]:
    """The events of these clients' days `first` … `last` that count beyond what the facts hold.

    These are received or applied, and either arrived after the facts of their day were asked for,
    or their day has no facts yet.
    """
    period = {"workspaces": list(workspaces), "first": first, "last": last}
    return [CountedEvents(**row) for row in connection.execute(_COUNTED, period).mappings()]


def affected_dates(
    connection: Connection, workspaces: Collection[str], today: date
) -> dict[str, list[date]]:
    """The dates whose rows the pending events of these clients affect, by client.

    These are the dates from an event's day on that have facts, and today if it has events.
    """
    found: dict[str, list[date]] = {}
    rows = connection.execute(_AFFECTED, {"workspaces": list(workspaces), "today": today})
    for workspace, day in rows:
        found.setdefault(workspace, []).append(day)
    return found


def mark_applied(
    connection: Connection,
    workspaces: Collection[str],
    dates: Collection[date],
    *,
    today: date,
    now: datetime,
) -> int:
    """Mark the events applied that affect only rows of `dates`; return how many there are.

    The rows of these clients and `dates` must be computed and published already.
    """
    values = {"workspaces": list(workspaces), "dates": list(dates), "today": today, "now": now}
    return connection.execute(_MARK_APPLIED, values).rowcount


def pending_events(connection: Connection, now: datetime) -> list[Pending]:
    """The clients with pending events that are due for a first or another try at `now`."""
    statement = text("""
        SELECT workspace, min(business_date) AS first_date, count(*) AS events,
            max(id) AS last_event, max(tries) AS tries
        FROM webhook_events
        WHERE status = 'received' AND business_date IS NOT NULL
        GROUP BY workspace
        HAVING coalesce(max(next_try_at), '-infinity') <= :now
        ORDER BY workspace
    """)
    return [Pending(**row) for row in connection.execute(statement, {"now": now}).mappings()]


def in_backoff(connection: Connection, workspaces: Collection[str], now: datetime) -> set[str]:
    """Those of the clients whose pending events failed and are not due for another try yet."""
    statement = text("""
        SELECT DISTINCT workspace FROM webhook_events
        WHERE status = 'received' AND next_try_at > :now AND workspace = ANY(:workspaces)
    """).bindparams(bindparam("workspaces", type_=ARRAY(Text)))
    return set(connection.scalars(statement, {"now": now, "workspaces": list(workspaces)}))
