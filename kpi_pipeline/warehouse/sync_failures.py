"""Which clients' last sync failed, and why."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text


@dataclass(frozen=True)
class SyncFailure:
    """A client whose work has failed from `since` on: the last failure's run, time and reason."""

    workspace: str
    run_id: str
    error: str
    since: datetime
    failed_at: datetime


# A run that called nobody, because it worked events in, says nothing of whether Email Bison answers
# again. Healthy clients cost a look into an index that holds failures alone.
_FAILURES = text("""
    SELECT c.workspace, f.run_id, coalesce(f.error, '') AS error, s.since,
        f.finished_at AS failed_at
    FROM clients c
    CROSS JOIN LATERAL (
        SELECT run_id, error, api_calls, finished_at
        FROM sync_log
        WHERE workspace = c.workspace AND status = 'error'
        ORDER BY finished_at DESC
        LIMIT 1
    ) f
    CROSS JOIN LATERAL (
        SELECT coalesce(max(finished_at), '-infinity') AS at
        FROM sync_log
        WHERE workspace = c.workspace AND status = 'ok' AND (api_calls > 0 OR f.api_calls = 0)
    ) w
    CROSS JOIN LATERAL (
        SELECT min(finished_at) AS since
        FROM sync_log
        WHERE workspace = c.workspace AND status = 'error' AND finished_at > w.at
    ) s
    WHERE c.active AND f.finished_at > w.at
    ORDER BY c.workspace
""")


def sync_failures(connection: Connection) -> list[SyncFailure]:
    """The active clients whose last work failed, and was not done well since."""
    return [SyncFailure(**row) for row in connection.execute(_FAILURES).mappings()]
