"""The last result of each check, for readers without Dagster."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, case, null, select
from sqlalchemy.dialects.postgresql import insert

from kpi_pipeline.db.tables import check_outcomes


@dataclass(frozen=True)
class StoredOutcome:
    """The result of an asset's check at `checked_at`.

    `offenders` are its first problems, and `more` is the number of others; `clients` are those of
    all problems. `since` is when it began to fail, and None while it passes.
    """

    name: str
    asset: str
    severity: str
    description: str
    offenders: Sequence[Mapping[str, object]]
    more: int
    clients: Sequence[str]
    checked_at: datetime
    since: datetime | None


def store_outcomes(connection: Connection, outcomes: Sequence[StoredOutcome]) -> None:
    """Write the last results. A check that failed before keeps the time when it began to fail."""
    if not outcomes:
        return
    rows = [
        {
            "check_name": it.name,
            "asset": it.asset,
            "passed": it.since is None,
            "severity": it.severity,
            "description": it.description,
            "offenders": list(it.offenders),
            "more": it.more,
            "clients": list(it.clients),
            "checked_at": it.checked_at,
            "failing_since": it.since,
        }
        for it in outcomes
    ]
    table = check_outcomes.c
    statement = insert(check_outcomes).values(rows)
    new = statement.excluded
    kept = {name: new[name] for name in rows[0] if name not in ("check_name", "failing_since")}
    since = case(
        (new.passed, null()), (~table.passed, table.failing_since), else_=new.failing_since
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[table.check_name],
            set_={**kept, "failing_since": since},
            # Of two runs of the checks at once, the later result counts.
            where=table.checked_at <= new.checked_at,
        )
    )


def read_outcomes(
    connection: Connection, names: Collection[str] | None = None
) -> list[StoredOutcome]:
    """The last results of these checks, or of all, ordered by name."""
    table = check_outcomes.c
    statement = select(
        table.check_name.label("name"),
        table.asset,
        table.severity,
        table.description,
        table.offenders,
        table.more,
        table.clients,
        table.checked_at,
        table.failing_since.label("since"),
    ).order_by(table.check_name)
    if names is not None:
        statement = statement.where(table.check_name.in_(names))
    return [StoredOutcome(**row) for row in connection.execute(statement).mappings()]


def failing_checks(connection: Connection) -> list[StoredOutcome]:
    """The last results that are failures."""
    return [it for it in read_outcomes(connection) if it.since is not None]
