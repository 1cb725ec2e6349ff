"""The clients: identity, labels, and whether they are active. `client_import` changes them."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select, update

from kpi_pipeline.db.coordination.locks import lock_clients
from kpi_pipeline.db.metrics import publish_labels
from kpi_pipeline.db.tables import client_api_keys, clients
from kpi_pipeline.errors import KpiError

# Dagster accepts any dynamic partition key, and then does not show one with "|".
_LONGEST = 63
_LETTERS = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "&": " and "}
)


def make_slug(name: str, taken: Collection[str]) -> str:
    """A workspace (slug) for a client called `name` that is none of `taken`.

    It matches `^[a-z0-9][a-z0-9_-]{0,62}$`. Accents are dropped, and letters without an ASCII
    equivalent; a name of such letters alone gives `client`. A second `acme` becomes `acme-2`.
    """
    plain = unicodedata.normalize("NFKD", name.strip().casefold().translate(_LETTERS))
    plain = plain.replace("'", "").replace("\N{RIGHT SINGLE QUOTATION MARK}", "")
    ascii_only = plain.encode("ascii", "ignore").decode()
    stem = re.sub(r"[^a-z0-9]+", "-", ascii_only)[:_LONGEST].strip("-") or "client"
    slug, number = stem, 1
    while slug in taken:
        number += 1
        ending = f"-{number}"
        slug = stem[: _LONGEST - len(ending)].rstrip("-") + ending
    return slug


@dataclass(frozen=True)
class Client:
    """One client: a workspace of an Email Bison instance. `name` is a label, never an identity."""

    workspace: str
    instance: str
    bison_workspace_id: int
    name: str
    display_name: str | None
    active: bool
    has_key: bool
    seen_in_bison_at: datetime | None

    @property
    def label(self) -> str:
        """The agency's name for the client, or else Email Bison's."""
        return self.display_name or self.name


def all_clients(connection: Connection) -> list[Client]:
    """Every client, active or not, ordered by workspace."""
    statement = (
        select(
            clients.c.workspace,
            clients.c.instance,
            clients.c.bison_workspace_id,
            clients.c.name,
            clients.c.display_name,
            clients.c.active,
            client_api_keys.c.workspace.is_not(None).label("has_key"),
            clients.c.seen_in_bison_at,
        )
        .outerjoin_from(clients, client_api_keys)
        .order_by(clients.c.workspace)
    )
    return [Client(**row) for row in connection.execute(statement).mappings()]


def active_clients(connection: Connection) -> list[Client]:
    """The active clients, ordered by workspace."""
    return [client for client in all_clients(connection) if client.active]


def pick_clients(connection: Connection, workspaces: Iterable[str]) -> list[Client]:
    """The active clients of these workspaces, in the given order.

    Raises:
        KpiError: naming each workspace that is unknown or belongs to an inactive client.
    """
    wanted = list(workspaces)
    found, unknown, inactive = _sorted_out(connection, wanted)
    if unknown:
        raise KpiError(_unknown(unknown))
    if inactive:
        raise KpiError(_not_active(inactive))
    return found


def pick_each(
    connection: Connection, workspaces: Iterable[str]
) -> tuple[list[Client], dict[str, str], dict[str, str]]:
    """As `pick_clients`, with two messages by workspace in place of the error.

    The first has the unknown workspaces, the second those of inactive clients.
    """
    found, unknown, inactive = _sorted_out(connection, list(workspaces))
    return (
        found,
        {it: _unknown([it]) for it in unknown},
        {it: _not_active([it]) for it in inactive},
    )


def lock_active(connection: Connection) -> list[str]:
    """The workspaces of the active clients; no client changes until the transaction ends."""
    statement = (
        select(clients.c.workspace, clients.c.active)
        .order_by(clients.c.workspace)
        # Rows that refer to clients can still be written.
        .with_for_update(key_share=True)
    )
    return [row.workspace for row in connection.execute(statement) if row.active]


def find_client(connection: Connection, workspace: str) -> Client | None:
    """The client of this workspace, active or not."""
    return next((it for it in all_clients(connection) if it.workspace == workspace), None)


def set_active(connection: Connection, workspace: str, *, active: bool) -> bool:
    """Activate or deactivate a client, as an import does; return whether that changes it.

    Its rows stay. Runs skip it from now on, and Dagster's partitions follow later.
    """
    lock_clients(connection, [workspace])
    statement = (
        update(clients)
        .where(clients.c.workspace == workspace, clients.c.active.is_(not active))
        .values(active=active, updated_at=func.now())
    )
    return connection.execute(statement).rowcount > 0


def _sorted_out(
    connection: Connection, wanted: Sequence[str]
) -> tuple[list[Client], list[str], list[str]]:
    """The active clients among `wanted`, and the workspaces that are unknown and inactive."""
    known = {client.workspace: client for client in all_clients(connection)}
    unknown = [it for it in wanted if it not in known]
    inactive = [it for it in wanted if it in known and not known[it].active]
    return [known[it] for it in wanted if it not in {*unknown, *inactive}], unknown, inactive


def _unknown(workspaces: Sequence[str]) -> str:
    return f"There is no client {', '.join(workspaces)}. `kpi clients list` shows the workspaces."


def _not_active(workspaces: Sequence[str]) -> str:
    return f"Not active: {', '.join(workspaces)}. Import the client again with active = yes."


def relabel(connection: Connection, names: Mapping[str, str], seen_at: datetime) -> None:
    """Store the names by which Email Bison lists these clients now (workspace → name).

    Every stored row of a client shows its new name.
    """
    stored = {client.workspace: client.name for client in all_clients(connection)}
    trimmed = {workspace: name.strip() for workspace, name in names.items()}
    new = {key: name for key, name in trimmed.items() if stored.get(key, name) != name}
    lock_clients(connection, new)
    columns = clients.c
    # In one order, as imports do it: two that update the same clients never wait for each other.
    for workspace in sorted(names):
        values = {"name": new[workspace]} if workspace in new else {}
        connection.execute(
            update(clients)
            .where(columns.workspace == workspace)
            .values(**values, seen_in_bison_at=seen_at)
        )
    publish_labels(connection, new)
