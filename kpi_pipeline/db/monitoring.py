"""Reads what `GET /metrics` exports: a few statements, whatever the number of clients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from kpi_pipeline.domain.calendar import business_date, day_start

# Events that did not count are problems of today, not of last year.
_UNCOUNTED_DAYS = 7
_ONE_HOUR = timedelta(hours=1)


class ClientActivity(NamedTuple):
    """How old a client's rows are, and its last sync with calls; ages and durations in seconds.

    Ages are whole seconds, which are read and written faster. All but the workspace are None for a
    client that has no row, or no sync yet.
    """

    workspace: str
    data_age: int | None
    sync_age: int | None
    sync_seconds: float | None
    sync_calls: int | None


class LastSyncRun(NamedTuple):
    """The last run that called Email Bison, over all of its clients."""

    age: float
    seconds: float
    calls: int
    succeeded: int
    failed: int


class CheckState(NamedTuple):
    """A check's last result; `severity` is None while it passes."""

    name: str
    severity: str | None
    age: float


class OpenAlert(NamedTuple):
    """A problem that is open."""

    cause: str
    severity: str


@dataclass(frozen=True)
class AlertActivity:
    """Open problems, mutes that hold, and for how many seconds each receiver has been failing."""

    problems: Sequence[OpenAlert]
    mutes: int
    failing_receivers: Mapping[str, float]


@dataclass(frozen=True)
class EventActivity:
    """Events of the last hour by source and status, and those that do not count, by status.

    `waiting` are stored and not yet in the rows; `uncounted` arrived in the last seven days.
    """

    last_hour: Mapping[tuple[str, str], int]
    uncounted: Mapping[str, int]
    waiting: int


# The instant up to which a client's rows hold everything: see `checks/freshness.py`. A row of
# yesterday says nothing of today, and one of an earlier day nothing of later days.
# Most clients are in the last run: the last sync of the others is looked up one by one.
_CLIENTS = """
    WITH last_run AS MATERIALIZED (
        SELECT workspace, finished_at, seconds, api_calls FROM sync_log
        WHERE api_calls > 0 AND run_id = (
            SELECT run_id FROM sync_log WHERE api_calls > 0 ORDER BY finished_at DESC LIMIT 1
        )
    )
    SELECT c.workspace,
        round(date_part('epoch', %(now)s - coalesce(r.as_of, l.as_of)))::int,
        round(date_part('epoch', %(now)s - coalesce(n.finished_at, s.finished_at)))::int,
        coalesce(n.seconds, s.seconds)::float8,
        coalesce(n.api_calls, s.api_calls)
    FROM clients c
    LEFT JOIN (
        SELECT workspace, max(
            CASE WHEN metric_date = %(today)s THEN least(as_of, %(now)s)
            ELSE least(as_of, %(midnight)s) END
        ) AS as_of
        FROM client_metrics
        WHERE metric_type = 'mtd' AND metric_date IN (%(today)s, %(yesterday)s)
        GROUP BY workspace
    ) r ON r.workspace = c.workspace
    LEFT JOIN LATERAL (
        SELECT least(as_of, (metric_date + 1)::timestamp AT TIME ZONE %(zone)s) AS as_of
        FROM client_metrics
        WHERE r.as_of IS NULL AND workspace = c.workspace AND metric_type = 'mtd'
            AND metric_date < %(yesterday)s
        ORDER BY metric_date DESC
        LIMIT 1
    ) l ON true
    LEFT JOIN last_run n ON n.workspace = c.workspace
    LEFT JOIN LATERAL (
        SELECT finished_at, seconds, api_calls FROM sync_log
        WHERE n.workspace IS NULL AND workspace = c.workspace AND api_calls > 0
        ORDER BY finished_at DESC
        LIMIT 1
    ) s ON true
    WHERE c.active
    ORDER BY c.workspace
"""

_LAST_RUN = """
    SELECT date_part('epoch', %(now)s - max(finished_at)),
        date_part('epoch', max(finished_at) - min(finished_at - seconds * interval '1 s')),
        coalesce(sum(api_calls), 0)::bigint,
        count(*) FILTER (WHERE status = 'ok'),
        count(*) FILTER (WHERE status = 'error')
    FROM sync_log
    WHERE run_id = (
        SELECT run_id FROM sync_log WHERE api_calls > 0 ORDER BY finished_at DESC LIMIT 1
    )
    HAVING count(*) > 0
"""

# Ids grow with the time of arrival, which has no index: the search halves the ids until few are
# left, and goes a minute too far, as processes may store events a little out of order.
_LAST_ID_BEFORE = """
    WITH RECURSIVE search (low, high) AS (
        SELECT 0::bigint, coalesce((SELECT max(id) FROM webhook_events), 0)
        UNION ALL
        SELECT CASE WHEN is_old THEN middle ELSE low END, CASE WHEN is_old THEN high ELSE middle END
        FROM (
            SELECT low, high, (low + high) / 2 AS middle, (
                SELECT arrived_at < %(since)s - interval '1 minute' FROM webhook_events
                WHERE id > (low + high) / 2 ORDER BY id LIMIT 1
            ) AS is_old
            FROM search
            WHERE high - low > 50
            OFFSET 0
        ) halves
    )
    SELECT max(low) FROM search
"""

# With the id as a constant, PostgreSQL knows that few rows follow, and starts no workers.
_LAST_HOUR = """
    SELECT source, status, count(*) FROM webhook_events
    WHERE id > %(after)s AND arrived_at >= %(since)s
    GROUP BY source, status
"""

_UNCOUNTED = """
    SELECT status, count(*) FROM webhook_events
    WHERE status IN ('set_aside', 'invalid', 'unmatched') AND arrived_at >= %(since)s
    GROUP BY status
    UNION ALL
    SELECT 'received', count(*) FROM webhook_events WHERE status = 'received'
"""

_CHECKS = """
    SELECT check_name, CASE WHEN NOT passed THEN severity END,
        date_part('epoch', %(now)s - checked_at)
    FROM check_outcomes
    ORDER BY check_name
"""

_ALERTS = """
    SELECT 'problem', cause, severity, 0::float8 FROM alert_state
    WHERE ended_at IS NULL AND muted_at IS NULL
    UNION ALL
    SELECT 'mute', name, '', 0 FROM alert_mutes WHERE muted_until > %(now)s
    UNION ALL
    SELECT 'receiver', receiver, '', date_part('epoch', %(now)s - failing_since)
    FROM alert_receivers
    ORDER BY 1, 2
"""


def client_activity(
    connection: Connection, now: datetime, day_zone: ZoneInfo
) -> list[ClientActivity]:
    """Each active client at `now`, by workspace; days are those of `day_zone`."""
    today = business_date(now, day_zone)
    return [
        ClientActivity(*row)
        for row in connection.exec_driver_sql(
            _CLIENTS,
            {
                "now": now,
                "today": today,
                "yesterday": today - timedelta(days=1),
                "midnight": day_start(today, day_zone),
                "zone": day_zone.key,
            },
        ).all()
    ]


def last_sync_run(connection: Connection, now: datetime) -> LastSyncRun | None:
    """The last run with a call, if there was one."""
    row = connection.exec_driver_sql(_LAST_RUN, {"now": now}).first()
    return None if row is None else LastSyncRun(*row)


def event_activity(connection: Connection, now: datetime) -> EventActivity:
    """What the inbox holds of the last hour, and what waits or does not count."""
    hour = {"since": now - _ONE_HOUR}
    after = connection.exec_driver_sql(_LAST_ID_BEFORE, hour).scalar_one()
    recent = connection.exec_driver_sql(_LAST_HOUR, {**hour, "after": after})
    last_hour = {(row[0], row[1]): row[2] for row in recent}
    since = now - timedelta(days=_UNCOUNTED_DAYS)
    others: dict[str, int] = {
        row[0]: row[1] for row in connection.exec_driver_sql(_UNCOUNTED, {"since": since})
    }
    return EventActivity(last_hour, others, others.pop("received"))


def check_states(connection: Connection, now: datetime) -> list[CheckState]:
    """The last result of each check, by name."""
    return [CheckState(*row) for row in connection.exec_driver_sql(_CHECKS, {"now": now})]


def alert_activity(connection: Connection, now: datetime) -> AlertActivity:
    """The state of the alerts."""
    found: dict[str, list[Any]] = {"problem": [], "mute": [], "receiver": []}
    for kind, name, severity, seconds in connection.exec_driver_sql(_ALERTS, {"now": now}):
        found[kind].append((name, severity, seconds))
    return AlertActivity(
        [OpenAlert(name, severity) for name, severity, _ in found["problem"]],
        len(found["mute"]),
        {name: seconds for name, _, seconds in found["receiver"]},
    )
