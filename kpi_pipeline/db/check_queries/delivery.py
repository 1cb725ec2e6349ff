"""Leads that Email Bison counted or listed, and leads that events delivered, by client and day."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, DateTime, bindparam, text
from sqlalchemy.types import ARRAY, Text


@dataclass(frozen=True)
class DailyLeads:
    """A client's leads on one day: `counted` by Email Bison at `as_of`, `delivered` by events.

    `as_of` is None if the day has no facts.
    """

    workspace: str
    instance: str
    day: date
    counted: int
    delivered: int
    as_of: datetime | None


# Inactive clients and events without a client are no evidence about webhooks.
_LEADS = text("""
    SELECT c.workspace, c.instance, day, coalesce(f.counted, 0) AS counted, f.as_of,
        coalesce(e.delivered, 0) AS delivered
    FROM (
        SELECT workspace, date AS day, interested AS counted, as_of
        FROM raw_bison_stats
        WHERE date BETWEEN :since AND :until
    ) f
    FULL JOIN (
        SELECT workspace, business_date AS day,
            count(*) FILTER (WHERE deliveries > 0) AS delivered
        FROM webhook_events
        WHERE metric = 'interested' AND workspace IS NOT NULL
          AND business_date BETWEEN :since AND :until
          AND status IN ('received', 'applied', 'set_aside')
        GROUP BY workspace, business_date
    ) e USING (workspace, day)
    JOIN clients c USING (workspace)
    WHERE c.active AND c.instance = ANY(:instances)
    ORDER BY c.workspace, day
""").bindparams(bindparam("instances", type_=ARRAY(Text)))

# A test event shows that the address is right, and not that a workspace sends its events there.
_FIRST_EVENTS = text("""
    SELECT i.instance, e.arrived_at
    FROM unnest(:instances) AS i(instance)
    CROSS JOIN LATERAL (
        SELECT arrived_at FROM webhook_events
        WHERE instance = i.instance AND source = 'webhook' AND status <> 'test'
        ORDER BY arrived_at
        LIMIT 1
    ) e
""").bindparams(bindparam("instances", type_=ARRAY(Text)))


def read_leads(
    connection: Connection, instances: Collection[str], since: date, until: date
) -> list[DailyLeads]:
    """One item for each active client of the instances and each day with facts or leads."""
    period = {"instances": list(instances), "since": since, "until": until}
    return [DailyLeads(**row) for row in connection.execute(_LEADS, period).mappings()]


def first_webhooks(connection: Connection, instances: Collection[str]) -> dict[str, datetime]:
    """When the first event of each instance arrived by a webhook, apart from test events."""
    rows = connection.execute(_FIRST_EVENTS, {"instances": list(instances)})
    return {row.instance: row.arrived_at for row in rows}


@dataclass(frozen=True)
class DroppedLeads:
    """Leads of a client's day that the event feed has and nothing delivered: the ids of the events.

    `listed` is how many leads of the day the feed has, `delivered` how many of them were delivered.
    """

    workspace: str
    instance: str
    day: date
    listed: int
    delivered: int
    events: Sequence[int]


_DROPPED = text("""
    SELECT e.workspace, e.instance, e.business_date AS day, count(*) AS listed,
        count(*) FILTER (WHERE e.deliveries > 0) AS delivered,
        array_agg(e.id ORDER BY e.id) FILTER (WHERE e.deliveries = 0) AS events
    FROM webhook_events e
    JOIN clients c USING (workspace)
    JOIN unnest(:instances, :begins) AS i(instance, begins_at) ON i.instance = e.instance
    WHERE e.metric = 'interested' AND e.business_date BETWEEN :since AND :until
      AND e.recorded_at BETWEEN i.begins_at AND :settled AND c.active
      AND e.status IN ('received', 'applied', 'set_aside')
    GROUP BY e.workspace, e.instance, e.business_date
    HAVING count(*) FILTER (WHERE e.deliveries = 0) > 0
    ORDER BY e.workspace, e.business_date
""").bindparams(
    bindparam("instances", type_=ARRAY(Text)),
    bindparam("begins", type_=ARRAY(DateTime(timezone=True))),
)


def read_dropped_leads(
    connection: Connection,
    begins: Mapping[str, datetime],
    since: date,
    until: date,
    settled: datetime,
) -> list[DroppedLeads]:
    """The leads of these days that webhooks dropped, for active clients.

    Those that were recorded up to `settled`, and after webhooks of their instance began to arrive.
    """
    values = {
        "instances": list(begins),
        "begins": list(begins.values()),
        "since": since,
        "until": until,
        "settled": settled,
    }
    return [DroppedLeads(**row) for row in connection.execute(_DROPPED, values).mappings()]


@dataclass(frozen=True)
class FeedReading:
    """When leads were last to be read in a client's event feed, and last were; and the problem."""

    workspace: str
    instance: str
    tried_at: datetime
    read_at: datetime | None
    problem: str | None


def read_feed_readings(connection: Connection, since: datetime) -> list[FeedReading]:
    """The reading of each active client whose feed was tried at `since` or later."""
    statement = text("""
        SELECT f.workspace, c.instance, f.tried_at, f.read_at, f.problem
        FROM event_feed f
        JOIN clients c USING (workspace)
        WHERE c.active AND f.event_type = 'lead_interested' AND f.tried_at >= :since
        ORDER BY f.workspace
    """)
    return [
        FeedReading(**row) for row in connection.execute(statement, {"since": since}).mappings()
    ]
