"""Which events count, on which rows they show, and when they are done with."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.types import ARRAY, Date

from kpi_pipeline.events.overlay import CountedEvents

# A day's events are looked up one day after the other, each from the moment of its facts on: most
# of a month's events are held by the facts, and need not be read.
_COUNTED = text("""
    SELECT d.day::date AS date, e.metric, count(*) AS events
    FROM generate_series(CAST(:first AS date), CAST(:last AS date), interval '1 day') AS d(day)
    LEFT JOIN raw_bison_stats f ON f.workspace = :workspace AND f.date = d.day::date
    CROSS JOIN LATERAL (
        SELECT metric FROM webhook_events
        WHERE workspace = :workspace AND business_date = d.day::date
          AND status IN ('received', 'applied')
          AND arrived_at > coalesce(f.as_of, '-infinity')
        OFFSET 0
    ) e
    GROUP BY d.day, e.metric
""")

# A day's facts show in the rows up to the end of the month after: as "last month".
_LAST_ROW = "(date_trunc('month', e.business_date) + interval '2 months - 1 day')::date"

_AFFECTED = text(f"""
    SELECT e.workspace, f.date
    FROM webhook_events e
    JOIN raw_bison_stats f ON f.workspace = e.workspace
     AND f.date BETWEEN e.business_date AND least(:today, {_LAST_ROW})
    WHERE e.status = 'received' AND e.business_date IS NOT NULL
      AND e.workspace = ANY(:workspaces)
    UNION
    SELECT e.workspace, e.business_date
    FROM webhook_events e
    WHERE e.status = 'received' AND e.business_date = :today AND e.workspace = ANY(:workspaces)
    ORDER BY 1, 2
""")  # noqa: S608 - no part of it comes from outside

_MARK_APPLIED = text(f"""
    UPDATE webhook_events e
    SET status = 'applied', applied_at = :now, reason = NULL, next_try_at = NULL
    WHERE e.workspace = :workspace AND e.status = 'received'
      AND e.business_date IS NOT NULL
      AND (e.business_date < :today OR :today = ANY(:dates))
      AND NOT EXISTS (
        SELECT 1 FROM raw_bison_stats f
        WHERE f.workspace = e.workspace
          AND f.date BETWEEN e.business_date AND least(:today, {_LAST_ROW})
          AND NOT f.date = ANY(:dates)
      )
""").bindparams(bindparam("dates", type_=ARRAY(Date)))  # noqa: S608 - as above


@dataclass(frozen=True)
class Pending:
    """A client's events that are stored and not applied: how many, and the first of their days."""

    workspace: str
    first_date: date
    events: int
    tries: int


def read_counted_events(
    connection: Connection, workspace: str, first: date, last: date
) -> list[CountedEvents]:
    """The events of a client's days `first` … `last` that count beyond what their facts hold.

    They stand received or applied, and arrived after the facts of their day were asked for, or
    there are none yet.
    """
    period = {"workspace": workspace, "first": first, "last": last}
    return [CountedEvents(**row) for row in connection.execute(_COUNTED, period).mappings()]


def affected_dates(
    connection: Connection, workspaces: Collection[str], today: date
) -> dict[str, list[date]]:
    """The dates whose rows the waiting events of these clients change, by client.

    From an event's day on, as far as there are facts; and today, where it has an event.
    """
    found: dict[str, list[date]] = {}
    rows = connection.execute(_AFFECTED, {"workspaces": list(workspaces), "today": today})
    for workspace, day in rows:
        found.setdefault(workspace, []).append(day)
    return found


def mark_applied(
    connection: Connection,
    workspace: str,
    dates: Collection[date],
    *,
    today: date,
    now: datetime,
) -> int:
    """Note that the rows of `dates` were worked out anew; return how many events that settles.

    An event is settled when each row that it shows in was among them.
    """
    values = {"workspace": workspace, "dates": list(dates), "today": today, "now": now}
    return connection.execute(_MARK_APPLIED, values).rowcount


def pending_events(connection: Connection, now: datetime) -> list[Pending]:
    """The clients with events that are stored and not applied and due to be tried (again) now."""
    statement = text("""
        SELECT workspace, min(business_date) AS first_date, count(*) AS events, max(tries) AS tries
        FROM webhook_events
        WHERE status = 'received' AND business_date IS NOT NULL
        GROUP BY workspace
        HAVING coalesce(max(next_try_at), '-infinity') <= :now
        ORDER BY workspace
    """)
    return [Pending(**row) for row in connection.execute(statement, {"now": now}).mappings()]
