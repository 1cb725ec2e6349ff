"""The clients' own API keys: encrypted, and each with the moment at which it was last verified."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr
from sqlalchemy import Connection, delete, select, update

from kpi_pipeline.db.tables import client_api_keys
from kpi_pipeline.db.upsert import upsert
from kpi_pipeline.db.vault import Vault


@dataclass(frozen=True)
class StoredKey:
    """A client's own API key, since when it is stored, and when it was last seen to be its own."""

    secret: SecretStr
    stored_at: datetime
    verified_at: datetime | None

    @property
    def number(self) -> str:
        """The part before the pipe: no secret, and the key's name in Email Bison."""
        return key_number(self.secret)


def key_number(secret: SecretStr) -> str:
    """The part of an API key before its pipe, which is no secret."""
    return secret.get_secret_value().partition("|")[0]


def stored_keys(
    connection: Connection, workspaces: Sequence[str], vault: Vault
) -> dict[str, StoredKey]:
    """The API keys of those clients that have one of their own.

    Raises:
        KpiError: if one can't be decrypted.
    """
    statement = select(client_api_keys).where(client_api_keys.c.workspace.in_(workspaces))
    return {
        row.workspace: StoredKey(
            vault.decrypt(row.encrypted_key, row.workspace), row.updated_at, row.verified_at
        )
        for row in connection.execute(statement)
    }


def store_keys(connection: Connection, secrets: Mapping[str, SecretStr], vault: Vault) -> None:
    """Give clients API keys of their own, in place of those they had; each is yet to be verified.

    `secrets` maps a client's `workspace` key to its API key.
    """
    rows = [
        {"workspace": workspace, "encrypted_key": vault.encrypt(secret), "verified_at": None}
        for workspace, secret in secrets.items()
    ]
    upsert(connection, client_api_keys, rows)


def mark_key(connection: Connection, workspace: str, verified_at: datetime | None) -> None:
    """Note when a client's key was seen to act in its workspace; None: it waits to be checked."""
    connection.execute(
        update(client_api_keys)
        .where(client_api_keys.c.workspace == workspace)
        .values(verified_at=verified_at)
    )


def drop_key(connection: Connection, workspace: str) -> None:
    """Forget a client's own API key; the master key serves the client from now on."""
    connection.execute(delete(client_api_keys).where(client_api_keys.c.workspace == workspace))
