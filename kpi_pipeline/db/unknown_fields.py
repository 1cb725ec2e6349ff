"""Members of Email Bison's answers that no document names: counted, and each reported once."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, bindparam, func, update
from sqlalchemy.dialects.postgresql import insert

from kpi_pipeline.db.tables import bison_unknown_fields


def note_unknown_fields(
    connection: Connection, instance: str, seen: Mapping[tuple[str, str], int], now: datetime
) -> list[tuple[str, str]]:
    """Add to the count of answers in which each (call, field) was seen, at `now`.

    Returns, sorted, those that were never seen before on this instance. Of two processes that see
    a field first at the same time, exactly one is told so.
    """
    if not seen:
        return []
    # Always in the same order, so that no two processes ever wait for each other in a circle.
    rows = [
        {
            "instance": instance,
            "call": call,
            "field": field,
            "answers": answers,
            "first_seen_at": now,
            "last_seen_at": now,
        }
        for (call, field), answers in sorted(seen.items())
    ]
    table = bison_unknown_fields
    added = insert(table).values(rows).on_conflict_do_nothing()
    new = {
        (row.call, row.field)
        for row in connection.execute(added.returning(table.c.call, table.c.field))
    }
    known = [
        {"of_call": row["call"], "of_field": row["field"], "more": row["answers"]}
        for row in rows
        if (row["call"], row["field"]) not in new
    ]
    if known:
        add = update(table).where(
            table.c.instance == instance,
            table.c.call == bindparam("of_call"),
            table.c.field == bindparam("of_field"),
        )
        counted = add.values(
            answers=table.c.answers + bindparam("more"),
            last_seen_at=func.greatest(table.c.last_seen_at, now),
        )
        connection.execute(counted, known)
    return sorted(new)
