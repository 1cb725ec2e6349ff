"""Who the clients are: identity, labels, targets and keys."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from pydantic import SecretStr
from sqlalchemy import Connection, select, update

from kpi_pipeline.db.api_keys import store_keys
from kpi_pipeline.db.tables import client_api_keys, client_targets, clients
from kpi_pipeline.db.upsert import upsert
from kpi_pipeline.db.vault import Vault
from kpi_pipeline.errors import KpiError

# Dagster checks no dynamic partition key; a key with "|" vanishes from its grid.
_LONGEST = 63
_LETTERS = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "&": " and "}
)


def make_slug(name: str, taken: Collection[str]) -> str:
    """A key for a client called `name` that is none of `taken`.

    It matches `^[a-z0-9][a-z0-9_-]{0,62}$`. Accents are dropped; what no ASCII letter stands for
    is left out; a name of such letters alone gives `client`. A second `acme` becomes `acme-2`.
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
        """What people call the client."""
        return self.display_name or self.name


@dataclass(frozen=True)
class ClientRecord:
    """One client as somebody hands it in; see `import_clients`. Targets are a month's counts."""

    instance: str
    bison_workspace_id: int
    name: str
    display_name: str | None
    active: bool
    monthly_kpi_target: int | None
    monthly_sending_target: int | None
    api_key: SecretStr | None


def all_clients(connection: Connection) -> list[Client]:
    """Every client, active or not, by its `workspace` key."""
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
    """The clients that the pipeline works for, by their `workspace` key."""
    return [client for client in all_clients(connection) if client.active]


def pick_clients(connection: Connection, workspaces: Iterable[str]) -> list[Client]:
    """The active clients with these `workspace` keys, in the order of the keys.

    Raises:
        KpiError: naming each key that is unknown or belongs to an inactive client.
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
) -> tuple[list[Client], dict[str, str]]:
    """As `pick_clients`, but with a sentence for each key that can't be worked for, by key."""
    found, unknown, inactive = _sorted_out(connection, list(workspaces))
    refused = {key: _unknown([key]) for key in unknown}
    return found, refused | {key: _not_active([key]) for key in inactive}


def _sorted_out(
    connection: Connection, wanted: Sequence[str]
) -> tuple[list[Client], list[str], list[str]]:
    """The active clients among `wanted`, and the keys that are unknown and not active."""
    known = {client.workspace: client for client in all_clients(connection)}
    unknown = [key for key in wanted if key not in known]
    inactive = [key for key in wanted if key in known and not known[key].active]
    return [known[key] for key in wanted if key not in {*unknown, *inactive}], unknown, inactive


def _unknown(keys: Sequence[str]) -> str:
    return f"There is no client {', '.join(keys)}. `kpi clients list` shows the keys."


def _not_active(keys: Sequence[str]) -> str:
    return f"Not active: {', '.join(keys)}. Import the client again with active = yes."


def import_clients(
    connection: Connection, records: Sequence[ClientRecord], *, targets_from: date, vault: Vault
) -> list[str]:
    """Write the clients, all of them or, if this raises, none; return their `workspace` keys.

    A client that is known by (instance, Bison workspace id) keeps its `workspace` key, and its API
    key where the record has none. Targets hold from the month that begins on `targets_from`;
    earlier months keep theirs.
    """
    known = {
        (client.instance, client.bison_workspace_id): client.workspace
        for client in all_clients(connection)
    }
    taken = set(known.values())
    keys = []
    for record in records:
        identity = (record.instance, record.bison_workspace_id)
        if identity not in known:
            known[identity] = make_slug(record.name, taken)
            taken.add(known[identity])
        keys.append(known[identity])
    rows = [
        {
            "workspace": key,
            "instance": record.instance,
            "bison_workspace_id": record.bison_workspace_id,
            "name": record.name,
            "display_name": record.display_name,
            "active": record.active,
        }
        for key, record in zip(keys, records, strict=True)
    ]
    upsert(connection, clients, rows)
    targets = [
        {
            "workspace": key,
            "holds_from": targets_from,
            "monthly_kpi_target": record.monthly_kpi_target,
            "monthly_sending_target": record.monthly_sending_target,
        }
        for key, record in zip(keys, records, strict=True)
    ]
    upsert(connection, client_targets, targets)
    secrets = {
        key: record.api_key
        for key, record in zip(keys, records, strict=True)
        if record.api_key is not None
    }
    store_keys(connection, secrets, vault)
    return keys


def relabel(connection: Connection, names: Mapping[str, str], seen_at: datetime) -> None:
    """Take over the names by which Email Bison lists these clients now (`workspace` → name)."""
    for workspace, name in names.items():
        connection.execute(
            update(clients)
            .where(clients.c.workspace == workspace)
            .values(name=name.strip(), seen_in_bison_at=seen_at)
        )
