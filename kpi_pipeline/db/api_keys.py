"""The clients' own API keys: encrypted, and each with the time of its last verification."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import Connection, Engine, delete, select, text, update

from kpi_pipeline.db.engine import session_lock
from kpi_pipeline.db.tables import client_api_keys
from kpi_pipeline.db.upsert import upsert
from kpi_pipeline.db.vault import (
    Vault,
    key_file,
    new_secret_key,
    open_vault,
    replace_kept_keys,
    split_keys,
)
from kpi_pipeline.errors import KpiError


@dataclass(frozen=True)
class StoredKey:
    """A client's own API key, since when it is stored, and when it was last verified."""

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
    """Give clients API keys of their own, in place of those they had; none is verified yet.

    `secrets` maps a client's workspace to its API key.
    """
    if not secrets:
        return
    # Before anything is encrypted: a rotation waits for this transaction, or this one for it.
    connection.execute(text("LOCK TABLE client_api_keys IN ROW EXCLUSIVE MODE"))
    rows = [
        {"workspace": workspace, "encrypted_key": vault.encrypt(secret), "verified_at": None}
        for workspace, secret in secrets.items()
    ]
    upsert(connection, client_api_keys, rows)


def mark_key(connection: Connection, workspace: str, verified_at: datetime | None) -> None:
    """Note when a client's API key was seen to act in its workspace; None: not verified."""
    connection.execute(
        update(client_api_keys)
        .where(client_api_keys.c.workspace == workspace)
        .values(verified_at=verified_at)
    )


def drop_key(connection: Connection, workspace: str) -> None:
    """Delete a client's own API key; the master key serves the client from now on."""
    connection.execute(delete(client_api_keys).where(client_api_keys.c.workspace == workspace))


_STEPS = (
    "KPI_SECRET_KEY holds one key, so there is nothing to rotate to. 1. Make a new key with "
    "`kpi secret-key new`. 2. Set KPI_SECRET_KEY to NEW,OLD for every process, and restart them. "
    "3. Run `kpi secret-key rotate` again. 4. Set KPI_SECRET_KEY to NEW alone, and restart them."
)


def rotate_secret_key(engine: Engine, configured: SecretStr | None, state_dir: Path) -> int:
    """Encrypt every API key under a new secret key; return how many there are.

    With `configured` secret keys, the first of several is the new one. Otherwise one is generated
    in `secret.key` of the state folder, which holds the new and the old one until every API key is
    encrypted under the new one: a process that is killed at any moment leaves all of them readable,
    and the next rotation finishes this one.

    Raises:
        KpiError: with the steps to take, if `configured` is a single key; or naming a client whose
            API key can't be decrypted.
    """
    path = key_file(state_dir)
    with session_lock(engine, "kpi:secret-key"):
        vault = open_vault(configured, state_dir)
        if configured is not None and not vault.has_old_keys:
            raise KpiError(_STEPS)
        if configured is None and not vault.has_old_keys:
            with engine.connect() as connection:
                _read_all(connection, vault)
            kept = split_keys(SecretStr(path.read_text()))
            replace_kept_keys(path, [new_secret_key(), *kept])
            vault = open_vault(None, state_dir)
        with engine.begin() as connection:
            _encrypt_again(connection, vault)
        with engine.connect() as connection:
            count = _read_all(connection, vault, current=True)
        if configured is None:
            replace_kept_keys(path, split_keys(SecretStr(path.read_text()))[:1])
    return count


def _encrypt_again(connection: Connection, vault: Vault) -> None:
    """Encrypt under the first secret key what is not; when it was stored and verified stays."""
    # Waits for those that store a key under the old secret key, and lets none begin.
    connection.execute(text("LOCK TABLE client_api_keys IN SHARE ROW EXCLUSIVE MODE"))
    for workspace, token in _tokens(connection).items():
        if not vault.is_current(token):
            connection.execute(
                update(client_api_keys)
                .where(client_api_keys.c.workspace == workspace)
                .values(encrypted_key=vault.encrypt(vault.decrypt(token, workspace)))
            )


def _read_all(connection: Connection, vault: Vault, *, current: bool = False) -> int:
    """Decrypt every API key, with `current` under the first secret key alone; how many."""
    tokens = _tokens(connection)
    for workspace, token in tokens.items():
        vault.decrypt(token, workspace)
        if current and not vault.is_current(token):
            raise KpiError(
                f"The API key of {workspace} was stored under an old secret key meanwhile. "
                "Run `kpi secret-key rotate` again."
            )
    return len(tokens)


def _tokens(connection: Connection) -> dict[str, bytes]:
    columns = client_api_keys.c
    rows = connection.execute(
        select(columns.workspace, columns.encrypted_key).order_by(columns.workspace)
    )
    return {row.workspace: row.encrypted_key for row in rows}
