"""Overlay queries: events not yet in the facts, the rows they affect, and applying them."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.types import ARRAY, Text

from kpi_pipeline.domain.events.overlay import CountedEvents

# Events are looked up day by day, each day's from the `as_of` of its facts on: the facts hold most
# of a month's events, and these need not be read. An event counts from the time at which it
# happened: a delivery that comes late, of an event that the facts hold, adds nothing.
_COUNTED = text("""
    SELECT w.workspace, d.day::date AS date, e.metric, count(*) AS events
    FROM unnest(:workspaces) AS w(workspace)
    CROSS JOIN generate_series(CAST(:first AS date), CAST(:last AS date), interval '1 day')
        AS d(day)
    LEFT JOIN raw_bison_stats f ON f.workspace = w.workspace AND f.date = d.day::date
    CROSS JOIN LATERAL (
        SELECT metric FROM webhook_events
        WHERE workspace = w.workspace AND business_date = d.day::date
          AND status = 'applied'
          AND coalesce(happened_at, arrived_at) > coalesce(f.as_of, '-infinity')
        OFFSET 0
    ) e
    GROUP BY w.workspace, d.day, e.metric
""").bindparams(bindparam("workspaces", type_=ARRAY(Text)))

# A day's events affect the rows up to the end of the next month, where they are "last month"; and
# an event of today makes today's row if there is none.
_AFFECTED = text("""
    SELECT e.workspace, r.metric_date
    FROM webhook_events e
    JOIN client_metrics r ON r.workspace = e.workspace AND r.metric_date
        BETWEEN e.business_date
        AND (date_trunc('month', e.business_date) + interval '2 months - 1 day')::date
    WHERE e.status = 'received' AND e.workspace = ANY(:workspaces)
    UNION
    SELECT workspace, business_date FROM webhook_events
    WHERE status = 'received' AND business_date = :today AND workspace = ANY(:workspaces)
    ORDER BY 1, 2
""").bindparams(bindparam("workspaces", type_=ARRAY(Text)))

# Marking comes before counting, and only marked events count. So what a transaction counts is what
# it marks: an event that is stored meanwhile is neither counted nor marked.
_APPLY = text("""
    WITH marked AS (
        UPDATE webhook_events
        SET status = 'applied', applied_at = :now, reason = NULL, next_try_at = NULL,
            business_date =
                coalesce(business_date, (arrived_at AT TIME ZONE CAST(:zone AS text))::date)
        WHERE status = 'received' AND workspace = ANY(:workspaces)
            AND NOT (:due_only AND workspace = ANY(ARRAY(
                SELECT workspace FROM webhook_events
                WHERE status = 'received' AND next_try_at > :now AND workspace = ANY(:workspaces)
            )))
        RETURNING id, workspace, business_date
    )
    SELECT workspace, array_agg(DISTINCT business_date) AS dates, array_agg(id) AS events
    FROM marked
    GROUP BY workspace
    ORDER BY workspace
""").bindparams(bindparam("workspaces", type_=ARRAY(Text)))


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


@dataclass(frozen=True)
class Applied:
    """The events of a client that were just marked applied: their business dates and ids."""

    workspace: str
    dates: Collection[date]
    events: Collection[int]


def read_counted_events(
    connection: Connection, workspaces: Collection[str], first: date, last: date
) -> list[CountedEvents]:
    """The events of these clients' days `first` … `last` that count beyond what the facts hold.

    These are applied, and either happened after the facts of their day were asked for, or their
    day has no facts. The time of an event is the one in its body, or else its arrival.
    """
    period = {"workspaces": list(workspaces), "first": first, "last": last}
    return [CountedEvents(**row) for row in connection.execute(_COUNTED, period).mappings()]


def affected_dates(
    connection: Connection, workspaces: Collection[str], today: date
) -> dict[str, list[date]]:
    """The dates whose rows the pending events of these clients affect, by client."""
    found: dict[str, list[date]] = {}
    rows = connection.execute(_AFFECTED, {"workspaces": list(workspaces), "today": today})
    for workspace, day in rows:
        found.setdefault(workspace, []).append(day)
    return found


def mark_applied(
    connection: Connection,
    workspaces: Collection[str],
    zone: ZoneInfo,
    now: datetime,
    *,
    due_only: bool = False,
) -> list[Applied]:
    """Mark the pending events of these clients applied; the caller then recomputes their rows.

    With `due_only`, none of a client of which some failed and are not due for another try yet. An
    event without a date, of the function `increment_metric`, gets that of its arrival in `zone`.
    """
    values = {"workspaces": list(workspaces), "zone": zone.key, "now": now, "due_only": due_only}
    return [Applied(**row) for row in connection.execute(_APPLY, values).mappings()]


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
