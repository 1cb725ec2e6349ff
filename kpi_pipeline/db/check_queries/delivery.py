"""Leads that Email Bison counted and leads that events delivered, by client and day."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, bindparam, text
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
        SELECT workspace, business_date AS day, count(*) AS delivered
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
