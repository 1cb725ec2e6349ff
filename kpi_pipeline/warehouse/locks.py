"""Locks that PostgreSQL holds for us: across processes, and freed by a crash of the holder."""

from sqlalchemy import Connection, text


def lock_client(connection: Connection, workspace: str) -> None:
    """Wait for the client's rows, and hold them until the transaction ends.

    Everything that recomputes a client's rows takes this lock first, so that a sync and a webhook
    never undo each other.
    """
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"),
        {"name": f"kpi:client:{workspace}"},
    )
