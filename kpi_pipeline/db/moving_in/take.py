"""Writes what is taken from the old system: clients that are new, targets, and the old rows."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, select, text

from kpi_pipeline.db.moving_in.match import Match
from kpi_pipeline.db.moving_in.source import OldRow
from kpi_pipeline.db.registry.client_import import (
    KEEP,
    ClientChange,
    ClientRecord,
    plan_import,
    write_import,
)
from kpi_pipeline.db.registry.clients import Client, all_clients
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.tables import client_targets
from kpi_pipeline.db.upsert import rows_as_json

_TARGETS = ("monthly_kpi_target", "monthly_sending_target")

# What is stored already stays, with its time.
_CLIENTS = text("""
    INSERT INTO old_clients AS stored (workspace, row)
    SELECT workspace, row FROM json_to_recordset(CAST(:rows AS json))
        AS r (workspace text, row jsonb)
    ON CONFLICT (workspace) DO UPDATE SET row = excluded.row, updated_at = now()
    WHERE stored.row IS DISTINCT FROM excluded.row
""")
_ROWS = text("""
    INSERT INTO old_metrics AS stored (workspace, metric_date, metric_type, row)
    SELECT workspace, metric_date, metric_type, row FROM json_to_recordset(CAST(:rows AS json))
        AS r (workspace text, metric_date date, metric_type text, row jsonb)
    ON CONFLICT (workspace, metric_date, metric_type)
        DO UPDATE SET row = excluded.row, updated_at = now()
    WHERE stored.row IS DISTINCT FROM excluded.row
    RETURNING xmax = 0 AS is_new
""")


@dataclass(frozen=True)
class Taken:
    """What was written. `registrations` counts the registry's rows that were not here, or were
    others; `unmatched` the rows of each name that is no taken client's.
    """

    clients: int = 0
    new: Sequence[str] = ()
    registrations: int = 0
    with_targets: Sequence[str] = ()
    with_keys: Sequence[str] = ()
    rows: int = 0
    new_rows: int = 0
    changed_rows: int = 0
    repeated: int = 0
    unmatched: Mapping[str, int] = field(default_factory=dict)

    @property
    def changes_nothing(self) -> bool:
        """Whether all of it was here already."""
        written = self.registrations + self.new_rows + self.changed_rows
        return not (self.new or self.with_targets or self.with_keys or written)


def take(
    connection: Connection,
    matches: Sequence[Match],
    rows: Sequence[OldRow],
    *,
    targets_from: date,
    vault: Vault,
    zone: ZoneInfo,
    with_keys: bool,
) -> Taken:
    """Add the clients that are new, with their targets from that month on, and keep the old rows.

    A known client stays as it is; one that never had a target gets those of the old registry. With
    `with_keys`, so does one that has no API key. A row that is stored twice is taken as it was
    written last.
    """
    with_target = set(connection.scalars(select(client_targets.c.workspace).distinct()))
    known = {(it.instance, it.bison_workspace_id): it for it in all_clients(connection)}
    records = [_record(it, known, with_target, with_keys=with_keys) for it in matches]
    plan = plan_import(connection, records, targets_from=targets_from, vault=vault)
    write_import(connection, plan, vault=vault, zone=zone)
    of_match = list(zip(plan.changes, matches, strict=True))
    registry = [{"workspace": it.workspace, "row": match.old.row} for it, match in of_match]
    registered = connection.execute(_CLIENTS, {"rows": rows_as_json(registry)})
    workspaces = {
        name.casefold(): it.workspace
        for it, match in of_match
        for name in (*match.also, match.old.name)
    }
    kept, repeated = _latest(rows, workspaces)
    written = connection.execute(_ROWS, {"rows": rows_as_json(kept)}).scalars().all()
    return Taken(
        clients=len(matches),
        new=_which(plan.changes, lambda it: it.before is None),
        registrations=registered.rowcount,
        with_targets=_which(plan.changes, lambda it: it.changed(*_TARGETS)),
        with_keys=_which(plan.changes, lambda it: it.key is not None),
        rows=len(kept),
        new_rows=sum(written),
        changed_rows=len(written) - sum(written),
        repeated=repeated,
        unmatched=Counter(it.name for it in rows if it.name.casefold() not in workspaces),
    )


def _record(
    match: Match,
    known: Mapping[tuple[str, int], Client],
    with_target: set[str],
    *,
    with_keys: bool,
) -> ClientRecord:
    old = match.old
    ours = known.get((match.instance, match.bison_workspace_id))
    targets = {name: old.number(name) for name in _TARGETS}
    display_name = old.text("display_name")
    has_key = ours is not None and ours.has_key
    takes_targets = ours is None or (ours.workspace not in with_target and any(targets.values()))
    return ClientRecord(
        instance=match.instance,
        bison_workspace_id=match.bison_workspace_id,
        name=match.name if ours is None else ours.name,
        display_name=KEEP if ours or display_name in (None, match.name) else display_name,
        active=match.active if ours is None else None,
        monthly_kpi_target=targets["monthly_kpi_target"] if takes_targets else KEEP,
        monthly_sending_target=targets["monthly_sending_target"] if takes_targets else KEEP,
        api_key=old.api_key if with_keys and not has_key else None,
    )


def _latest(
    rows: Sequence[OldRow], workspaces: Mapping[str, str]
) -> tuple[list[dict[str, object]], int]:
    """One row for each client, date and type, and how many others there were."""
    latest: dict[tuple[str, date, str], OldRow] = {}
    matched = 0
    for row in rows:
        workspace = workspaces.get(row.name.casefold())
        if workspace is None:
            continue
        matched += 1
        key = (workspace, row.metric_date, row.metric_type)
        if key not in latest or latest[key].updated_at <= row.updated_at:
            latest[key] = row
    kept = [
        {"workspace": workspace, "metric_date": day, "metric_type": kind, "row": row.values}
        for (workspace, day, kind), row in latest.items()
    ]
    return kept, matched - len(kept)


def _which(changes: Sequence[ClientChange], holds: Callable[[ClientChange], bool]) -> list[str]:
    return [it.workspace for it in changes if holds(it)]
