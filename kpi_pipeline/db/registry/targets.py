"""Targets, and the history of their changes: who changed them, when, from what, and to what."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Date, Text, bindparam, delete, func, insert, select, text
from sqlalchemy.types import ARRAY

from kpi_pipeline.db.coordination.locks import lock_client
from kpi_pipeline.db.facts import read_targets
from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.db.tables import client_metrics, client_targets, target_changes
from kpi_pipeline.db.upsert import upsert
from kpi_pipeline.domain.metrics import Target
from kpi_pipeline.errors import KpiError

IMPORT = "import"


@dataclass(frozen=True)
class Targets:
    """What a month is to bring, in positive replies and in emails; None: no target."""

    monthly_kpi_target: int | None = None
    monthly_sending_target: int | None = None


@dataclass(frozen=True)
class TargetChange:
    """One change of the targets that hold from the month `holds_from`.

    `before` and `after` are None where the month has no targets of its own, and those of an earlier
    month hold. `undoes` is the change that this one took back, and `undone` says that this one was
    taken back.
    """

    id: int
    workspace: str
    holds_from: date
    before: Targets | None
    after: Targets | None
    changed_by: str
    changed_at: datetime
    undoes: int | None = None
    undone: bool = False


def targets_of(connection: Connection, workspace: str, month: date) -> Targets:
    """The targets that hold in the month that begins on `month`."""
    held = [it for it in read_targets(connection, [workspace]) if it.holds_from <= month]
    latest = max(held, key=lambda it: it.holds_from, default=None)
    return Targets() if latest is None else _targets(latest)


def next_own_month(connection: Connection, workspace: str, month: date) -> date | None:
    """The first month after `month` that has targets of its own."""
    months = [it.holds_from for it in read_targets(connection, [workspace])]
    return min((it for it in months if it > month), default=None)


def count_rows_since(connection: Connection, workspace: str, month: date) -> int:
    """How many stored rows of the client show the targets of that month, or of a later one."""
    row = client_metrics.c
    statement = select(func.count()).where(row.workspace == workspace, row.metric_date >= month)
    return connection.scalar(statement) or 0


def set_targets(
    connection: Connection,
    workspace: str,
    month: date,
    targets: Targets,
    *,
    changed_by: str,
    zone: ZoneInfo,
) -> bool:
    """Set a client's targets from the month that begins on `month`; return whether they change.

    They, their history, and all rows in which they show are written in this transaction, under the
    client's lock. `zone` is that of Email Bison's days.
    """
    lock_client(connection, workspace)
    if targets_of(connection, workspace, month) == targets:
        return False
    write_targets(connection, {workspace: targets}, month, changed_by=changed_by)
    update_rows(connection, [workspace], since=month, zone=zone, source="edit")
    return True


def undo_change(
    connection: Connection, workspace: str, change_id: int, *, changed_by: str, zone: ZoneInfo
) -> TargetChange:
    """Take a change back, as `set_targets` makes one; return it.

    Raises:
        KpiError: if it is unknown, was taken back, or a later change of its month was not; or if
            the month's targets are not those that the change set. Nothing is written then.
    """
    lock_client(connection, workspace)
    history = read_changes(connection, workspace)
    change = next((it for it in history if it.id == change_id), None)
    if change is None:
        raise KpiError(f"{workspace} has no such change of targets.")
    if problem := why_not_undone(change, history):
        raise KpiError(problem)
    if _own_targets(connection, [workspace], change.holds_from).get(workspace) != change.after:
        raise KpiError(
            f"The targets from {change.holds_from:%B %Y} on are no longer those of this change, as "
            "they were changed outside of this page. Set them instead."
        )
    write_targets(
        connection,
        {workspace: change.before},
        change.holds_from,
        changed_by=changed_by,
        undoes=change.id,
    )
    update_rows(connection, [workspace], since=change.holds_from, zone=zone, source="edit")
    return change


def why_not_undone(change: TargetChange, history: Sequence[TargetChange]) -> str | None:
    """Why a change can't be taken back now, as a sentence; None if it can."""
    month = f"{change.holds_from:%B %Y}"
    if change.undoes is not None:
        return "This took another change back. To have that again, set the targets."
    if change.undone:
        return "This change is taken back already."
    later = [
        it
        for it in history
        if it.holds_from == change.holds_from
        and it.id > change.id
        and it.undoes is None
        and not it.undone
    ]
    if later:
        return f"The targets from {month} on were changed again later: take that back first."
    return None


def read_changes(connection: Connection, workspace: str) -> list[TargetChange]:
    """All changes of a client's targets, the latest first."""
    table = target_changes
    undoing = table.alias("undoing")
    undone = select(undoing.c.id).where(undoing.c.undoes == table.c.id).exists()
    statement = (
        select(table, undone.label("undone"))
        .where(table.c.workspace == workspace)
        .order_by(table.c.id.desc())
    )
    return [
        TargetChange(**{**row, "before": _parsed(row["before"]), "after": _parsed(row["after"])})
        for row in connection.execute(statement).mappings()
    ]


def write_targets(
    connection: Connection,
    targets: Mapping[str, Targets | None],
    month: date,
    *,
    changed_by: str,
    undoes: int | None = None,
) -> None:
    """Write the targets (by workspace) from a month on, and their history.

    None deletes the month's own targets. The caller holds the clients' locks, and recomputes their
    rows in the same transaction.
    """
    before = _own_targets(connection, list(targets), month)
    changed = {key: it for key, it in targets.items() if before.get(key) != it}
    rows = [
        {"workspace": workspace, "holds_from": month, **asdict(it)}
        for workspace, it in changed.items()
        if it is not None
    ]
    upsert(connection, client_targets, rows)
    deleted = [workspace for workspace, it in changed.items() if it is None]
    if deleted:
        table = client_targets.c
        connection.execute(
            delete(client_targets).where(table.workspace.in_(deleted), table.holds_from == month)
        )
    if changed:
        history = [
            {
                "workspace": workspace,
                "holds_from": month,
                "before": asdict(before[workspace]) if workspace in before else None,
                "after": None if it is None else asdict(it),
                "changed_by": changed_by,
                "undoes": undoes,
            }
            for workspace, it in changed.items()
        ]
        connection.execute(insert(target_changes), history)


_OWN = text("""
    SELECT workspace, monthly_kpi_target, monthly_sending_target FROM client_targets
    WHERE workspace = ANY(:workspaces) AND holds_from = :month
""").bindparams(bindparam("workspaces", type_=ARRAY(Text)), bindparam("month", type_=Date))


def _own_targets(
    connection: Connection, workspaces: Sequence[str], month: date
) -> dict[str, Targets]:
    """The targets that hold from that very month, of each client that has some."""
    found = connection.execute(_OWN, {"workspaces": list(workspaces), "month": month})
    return {row.workspace: Targets(*row[1:]) for row in found}


def _targets(target: Target) -> Targets:
    return Targets(target.monthly_kpi_target, target.monthly_sending_target)


def _parsed(stored: Mapping[str, int | None] | None) -> Targets | None:
    return None if stored is None else Targets(**stored)
