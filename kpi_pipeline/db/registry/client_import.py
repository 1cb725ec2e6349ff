"""Imports of clients: what differs from the stored state, and how it is written.

An import changes only what its records name, and works out the stored rows in which a change shows.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Final
from zoneinfo import ZoneInfo

from pydantic import SecretStr
from sqlalchemy import Connection, bindparam, func, insert, select, text, update

from kpi_pipeline.db.coordination.locks import lock_clients
from kpi_pipeline.db.facts import read_targets
from kpi_pipeline.db.metrics import publish_labels
from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.db.registry.api_keys import NewKey, new_keys, store_keys
from kpi_pipeline.db.registry.clients import all_clients, make_slug
from kpi_pipeline.db.registry.targets import IMPORT, Targets, write_targets
from kpi_pipeline.db.registry.thresholds import THRESHOLDS, shown_percent
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.tables import clients
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.domain.metrics import Target


class Keep(Enum):
    """The type of `KEEP`."""

    KEEP = "as it is"


# In place of a value: it stays as it is. A new client has none.
KEEP: Final = Keep.KEEP

_TARGETS = ("monthly_kpi_target", "monthly_sending_target")
# Targets have a table of their own, as they have a history.
_OF_CLIENTS = ("name", "display_name", "active", *THRESHOLDS)
# Fields that stay as they are where a file does not have their column.
MAY_BE_KEPT = ("display_name", *_TARGETS, *THRESHOLDS)


@dataclass(frozen=True)
class ClientRecord:
    """One client to import. Targets are counts per month, thresholds are in percent.

    None removes a label, a target or a threshold. With `active` None a known client stays as it
    is, and a new one is active; with `api_key` None the stored one stays. `line` is that of the
    file, if there is one.
    """

    instance: str
    bison_workspace_id: int
    name: str
    display_name: str | Keep | None = KEEP
    active: bool | None = None
    monthly_kpi_target: int | Keep | None = KEEP
    monthly_sending_target: int | Keep | None = KEEP
    max_sending_shortfall: Decimal | Keep | None = KEEP
    min_reply_rate: Decimal | Keep | None = KEEP
    api_key: SecretStr | None = None
    line: int | None = field(default=None, compare=False)


@dataclass(frozen=True)
class ClientState:
    """What an import can change of a client, but for the API key; the targets are of one month."""

    name: str
    display_name: str | None = None
    active: bool = True
    monthly_kpi_target: int | None = None
    monthly_sending_target: int | None = None
    max_sending_shortfall: Decimal | None = None
    min_reply_rate: Decimal | None = None

    def with_record(self, record: ClientRecord) -> "ClientState":
        """The state after the import of `record`."""
        active = self.active if record.active is None else record.active
        values = {name: getattr(record, name) for name in MAY_BE_KEPT}
        given = {name: value for name, value in values.items() if value is not KEEP}
        return replace(self, name=record.name, active=active, **given)


@dataclass(frozen=True)
class ClientChange:
    """What an import does to one client. It is new if `before` is None; its API key stays as it is
    if `key` is None.
    """

    workspace: str
    record: ClientRecord
    before: ClientState | None
    after: ClientState
    key: NewKey | None

    def changed(self, *names: str) -> bool:
        """Whether one of these fields changes; a new client had none of them."""
        before = self.before or ClientState("")
        return any(getattr(before, name) != getattr(self.after, name) for name in names)

    @property
    def is_unchanged(self) -> bool:
        """Whether the client is known, and stays as it is."""
        return self.before == self.after and self.key is None

    def kinds(self) -> Iterator[str]:
        """The words of the summary under which this client counts, one for each change."""
        if self.before is None:
            yield "new"
        elif self.is_unchanged:
            yield "unchanged"
        else:
            yield from (_KINDS[name] for name in _KINDS if self.changed(name))
            if self.key is not None:
                yield "API key"
            if self.changed("active"):
                yield "reactivated" if self.after.active else "deactivated"

    def description(self) -> str:
        """The changes of a known client on one line."""
        parts = []
        for it in fields(ClientState):
            if self.changed(it.name):
                values = (getattr(state, it.name) for state in (self.before, self.after))
                parts.append(f"{it.name} {' → '.join(map(_shown, values))}")
        if self.key is not None:
            parts.append(f"api_key {_shown(self.key.replaces)} → {self.key.number}")
        return f"{self.workspace}: {', '.join(parts)}"

    def risks(self) -> Iterator[str]:
        """What a person has to confirm, as sentences that begin with the line and the column."""
        place = "" if self.record.line is None else f"line {self.record.line}, "
        if self.before is None:
            return
        if self.after.active and not self.before.active:
            yield f"{place}active: {self.workspace} is inactive, and would be active again"
        for name in _TARGETS:
            target = getattr(self.before, name)
            if target is not None and getattr(self.after, name) is None:
                yield (
                    f"{place}{name}: the cell is blank, and the target {target:,} of "
                    f"{self.workspace} would be deleted"
                )
        if self.key is not None and self.key.objection is not None:
            yield (
                f"{place}api_key: key {self.key.replaces} of {self.workspace} would be replaced by "
                f"{self.key.objection}"
            )


# Fields of a client, and the words under which the summary counts their changes.
_KINDS = {
    "name": "name",
    "display_name": "display name",
    "monthly_kpi_target": "target",
    "monthly_sending_target": "target",
    **dict.fromkeys(THRESHOLDS, "threshold"),
}
_COUNTED = ("name", "display name", "target", "threshold", "API key")
_ORDER = ("new", "unchanged", *_COUNTED, "reactivated", "deactivated")


@dataclass(frozen=True)
class ImportPlan:
    """What an import changes, in the order of its records; targets hold from `targets_from` on."""

    changes: Sequence[ClientChange]
    targets_from: date

    def summary(self) -> str:
        """The number of clients or values that change, by kind: 12 unchanged, 2 targets."""
        counts = Counter(kind for change in self.changes for kind in change.kinds())
        return ", ".join(
            counted(counts[kind], kind) if kind in _COUNTED else f"{counts[kind]:,} {kind}"
            for kind in _ORDER
            if counts[kind]
        )

    def descriptions(self) -> list[str]:
        """A line for each known client that changes."""
        return [
            it.description() for it in self.changes if it.before is not None and not it.is_unchanged
        ]

    def risks(self) -> list[str]:
        """The changes that a person has to confirm: clients that become active again, targets that
        are deleted, and API keys that are replaced by older ones.
        """
        return [risk for change in self.changes for risk in change.risks()]


def plan_import(
    connection: Connection, records: Sequence[ClientRecord], *, targets_from: date, vault: Vault
) -> ImportPlan:
    """Compare the records with the stored clients, whose locks are held until the transaction ends.

    A client with a known (instance, Bison workspace id) keeps its workspace. Targets hold from the
    month that begins on `targets_from`.
    """
    # One import at a time: two new clients of one name get two workspaces.
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('kpi:clients', 0))"))
    known = {
        (client.instance, client.bison_workspace_id): client.workspace
        for client in all_clients(connection)
    }
    taken = set(known.values())
    workspaces = []
    for record in records:
        identity = (record.instance, record.bison_workspace_id)
        if identity not in known:
            known[identity] = make_slug(record.name, taken)
            taken.add(known[identity])
        workspaces.append(known[identity])
    lock_clients(connection, workspaces)
    stored = read_states(connection, workspaces, targets_from)
    by_workspace = dict(zip(workspaces, records, strict=True))
    secrets = {key: it.api_key for key, it in by_workspace.items() if it.api_key is not None}
    keys = new_keys(connection, secrets, vault)
    changes = []
    for workspace, record in by_workspace.items():
        before = stored.get(workspace)
        after = (before or ClientState(record.name)).with_record(record)
        changes.append(ClientChange(workspace, record, before, after, keys.get(workspace)))
    return ImportPlan(changes, targets_from)


def write_import(connection: Connection, plan: ImportPlan, *, vault: Vault, zone: ZoneInfo) -> None:
    """Write what a plan changes, in the transaction that made it, and work out the rows again.

    `zone` is that of Email Bison's days.
    """
    _write_clients(connection, plan.changes)
    targets = {
        it.workspace: Targets(**{name: getattr(it.after, name) for name in _TARGETS})
        for it in plan.changes
        if it.changed(*_TARGETS)
    }
    write_targets(connection, targets, plan.targets_from, changed_by=IMPORT)
    keys = {it.workspace: it.key.secret for it in plan.changes if it.key is not None}
    store_keys(connection, keys, vault)
    known = [it for it in plan.changes if it.before is not None]
    if relabelled := [it.workspace for it in known if it.changed("name", "display_name")]:
        publish_labels(connection, relabelled)
    if retargeted := [it.workspace for it in known if it.changed(*_TARGETS)]:
        update_rows(connection, retargeted, since=plan.targets_from, zone=zone, source="import")


def import_clients(
    connection: Connection,
    records: Sequence[ClientRecord],
    *,
    targets_from: date,
    vault: Vault,
    zone: ZoneInfo,
) -> list[str]:
    """Import the clients, whatever changes; return their workspaces. If this raises, roll back."""
    plan = plan_import(connection, records, targets_from=targets_from, vault=vault)
    write_import(connection, plan, vault=vault, zone=zone)
    return [change.workspace for change in plan.changes]


def read_states(
    connection: Connection, workspaces: Sequence[str], month: date
) -> dict[str, ClientState]:
    """What an import can change of these clients, with the targets that hold in `month`."""
    targets: dict[str, Target] = {}
    for target in read_targets(connection, workspaces):
        latest = targets.get(target.workspace)
        if target.holds_from <= month and (not latest or latest.holds_from < target.holds_from):
            targets[target.workspace] = target
    columns = clients.c
    statement = select(columns.workspace, *(columns[name] for name in _OF_CLIENTS)).where(
        columns.workspace.in_(workspaces)
    )
    states = {
        row["workspace"]: ClientState(**{name: row[name] for name in _OF_CLIENTS})
        for row in connection.execute(statement).mappings()
    }
    for workspace, target in targets.items():
        values = {name: getattr(target, name) for name in _TARGETS}
        states[workspace] = replace(states[workspace], **values)
    return states


def _write_clients(connection: Connection, changes: Sequence[ClientChange]) -> None:
    new = [
        {
            "workspace": it.workspace,
            "instance": it.record.instance,
            "bison_workspace_id": it.record.bison_workspace_id,
            **{name: getattr(it.after, name) for name in _OF_CLIENTS},
        }
        for it in changes
        if it.before is None
    ]
    changed = [
        {"of": it.workspace, **{name: getattr(it.after, name) for name in _OF_CLIENTS}}
        for it in sorted(changes, key=lambda it: it.workspace)
        if it.before is not None and it.changed(*_OF_CLIENTS)
    ]
    if new:
        connection.execute(insert(clients), new)
    if changed:
        # No upsert: it would lock the key of the client, for which those wait who store its events.
        statement = update(clients).where(clients.c.workspace == bindparam("of"))
        connection.execute(statement.values(updated_at=func.now()), changed)


def _shown(value: object) -> str:
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case Decimal():
            return f"{shown_percent(value)} %"
        case _:
            return str(value)
