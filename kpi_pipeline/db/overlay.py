"""Which events count, on which rows they show, and when they are done with."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.types import ARRAY, Date, Text

from kpi_pipeline.domain.events.overlay import CountedEvents

# A day's events are looked up one day after the other, each from the moment of its facts on: most
# of a month's events are held by the facts, and need not be read.
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

# A day's facts show in the rows up to the end of the month after: as "last month".
_LAST_ROW = "(date_trunc('month', e.business_date) + interval '2 months - 1 day')::date"

# Today's row may stand on events alone; those of earlier days show in it, too.
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
    """A client's events that are stored and not applied: how many, and the first of their days.

    `last_event` is the highest of their ids, `tries` how often the most tried one failed.
    """

    workspace: str
    first_date: date
    events: int
    last_event: int
    tries: int


def read_counted_events(
    connection: Connection, workspaces: Collection[str], first: date, last: date
) -> list[CountedEvents]:
    """The events of these clients' days `first` … `last` that count beyond what their facts hold.

    They stand received or applied, and arrived after the facts of their day were asked for, or
    there are none yet.
    """
    period = {"workspaces": list(workspaces), "first": first, "last": last}
    return [CountedEvents(**row) for row in connection.execute(_COUNTED, period).mappings()]


def affected_dates(
    connection: Connection, workspaces: Collection[str], today: date
) -> dict[str, list[date]]:
    """The dates whose rows the waiting events of these clients change, by client.

    From an event's day on, as far as there are facts; and today, where it has events of its own.
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
    """Note that these clients' rows of `dates` were worked out; return how many events it settles.

    An event is settled when each row that it shows in was among them.
    """
    values = {"workspaces": list(workspaces), "dates": list(dates), "today": today, "now": now}
    return connection.execute(_MARK_APPLIED, values).rowcount


def pending_events(connection: Connection, now: datetime) -> list[Pending]:
    """The clients with events that are stored and not applied and due to be tried (again) now."""
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
    """Those of the clients whose waiting events failed before, and are not due to be tried yet."""
    statement = text("""
        SELECT DISTINCT workspace FROM webhook_events
        WHERE status = 'received' AND next_try_at > :now AND workspace = ANY(:workspaces)
    """).bindparams(bindparam("workspaces", type_=ARRAY(Text)))
    return set(connection.scalars(statement, {"now": now, "workspaces": list(workspaces)}))
