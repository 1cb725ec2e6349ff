"""The clients' own API keys: encrypted, and each with the time of its last verification."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    delete,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from kpi_pipeline.db.coordination.lease import exclusive
from kpi_pipeline.db.registry.vault import (
    Vault,
    key_file,
    new_secret_key,
    open_vault,
    replace_kept_keys,
    split_keys,
)
from kpi_pipeline.db.tables import client_api_keys
from kpi_pipeline.errors import KpiError


@dataclass(frozen=True)
class StoredKey:
    """A client's own API key, since when it is stored, and when it was last verified.

    `token` is its encrypted form: a new one each time that a key is stored.
    """

    secret: SecretStr
    stored_at: datetime
    verified_at: datetime | None
    token: bytes = field(repr=False, compare=False)

    @property
    def number(self) -> str:
        """The part before the pipe: no secret, and the key's name in Email Bison."""
        return key_number(self.secret)


@dataclass(frozen=True)
class NewKey:
    """An API key to store, and the number of the stored one, where there is one.

    `objection` says why it may be the wrong one, in words to follow "would be replaced by".
    """

    secret: SecretStr
    replaces: str | None = None
    objection: str | None = None

    @property
    def number(self) -> str:
        """The part before the pipe, which is no secret."""
        return key_number(self.secret)


def key_number(secret: SecretStr) -> str:
    """The part of an API key before its pipe, which is no secret."""
    return secret.get_secret_value().partition("|")[0]


def stored_keys(
    connection: Connection, workspaces: Collection[str], vault: Vault
) -> dict[str, StoredKey]:
    """The API keys of those clients that have one of their own.

    Raises:
        KpiError: if one can't be decrypted.
    """
    statement = select(client_api_keys).where(client_api_keys.c.workspace.in_(workspaces))
    return {row.workspace: _read(row, vault) for row in connection.execute(statement)}


def new_keys(
    connection: Connection, secrets: Mapping[str, SecretStr], vault: Vault
) -> dict[str, NewKey]:
    """Those of `secrets` (workspace → API key) that are not the stored ones.

    A stored API key that can't be decrypted is new with its own number, too.
    """
    statement = select(client_api_keys).where(client_api_keys.c.workspace.in_(secrets))
    rows = {row.workspace: row for row in connection.execute(statement)}
    found = {
        workspace: _compared(secret, rows[workspace], vault)
        if workspace in rows
        else NewKey(secret)
        for workspace, secret in secrets.items()
    }
    return {workspace: key for workspace, key in found.items() if key is not None}


def _compared(secret: SecretStr, row: Row[Any], vault: Vault) -> NewKey | None:
    """The API key in comparison with the stored one; None if it is the same."""
    number = key_number(secret)
    *earlier, current = row.numbers or [None]
    objection = None
    try:
        stored = _read(row, vault)
    except KpiError:
        pass
    else:
        if stored.secret == secret:
            return None
        current = stored.number
        if number == current:
            objection = f"another key of the number {number}"
    # Email Bison numbers keys in the order in which it makes them.
    if current is not None and _order(number) < _order(current):
        objection = f"key {number}, which is older"
    elif number in earlier and number != current:
        objection = f"key {number}, which was stored before"
    return NewKey(secret, current, objection)


def _order(number: str) -> tuple[int, str]:
    # As a number of any length: int() reads no more than a few thousand digits.
    digits = number.lstrip("0")
    return len(digits), digits


def store_keys(
    connection: Connection,
    secrets: Mapping[str, SecretStr],
    vault: Vault,
    *,
    verified_at: datetime | None = None,
) -> dict[str, StoredKey]:
    """Give clients API keys of their own, in place of those they had; return these.

    `secrets` maps a client's workspace to its API key. The caller holds the lock of the clients.
    """
    if not secrets:
        return {}
    # Before anything is encrypted: a rotation waits for this transaction, or this one for it.
    connection.execute(text("LOCK TABLE client_api_keys IN ROW EXCLUSIVE MODE"))
    rows = [
        {
            "workspace": workspace,
            "encrypted_key": vault.encrypt(secret),
            "verified_at": verified_at,
            "numbers": [key_number(secret)],
        }
        for workspace, secret in secrets.items()
    ]
    statement = insert(client_api_keys)
    statement = statement.on_conflict_do_update(
        index_elements=[client_api_keys.c.workspace],
        set_={
            "encrypted_key": statement.excluded.encrypted_key,
            "verified_at": statement.excluded.verified_at,
            "numbers": client_api_keys.c.numbers.op("||")(statement.excluded.numbers),
            "updated_at": func.now(),
        },
    )
    connection.execute(statement, rows)
    return stored_keys(connection, secrets, vault)


def mark_key(
    connection: Connection, workspace: str, key: StoredKey, verified_at: datetime | None
) -> None:
    """Note when this API key was seen to act in its client's workspace; None: not verified.

    Nothing changes if another key was stored meanwhile.
    """
    connection.execute(
        update(client_api_keys).where(*_is(workspace, key)).values(verified_at=verified_at)
    )


def drop_key(connection: Connection, workspace: str, key: StoredKey) -> None:
    """Delete this API key; the master key serves the client from now on.

    Nothing changes if another key was stored meanwhile.
    """
    connection.execute(delete(client_api_keys).where(*_is(workspace, key)))


def _is(workspace: str, key: StoredKey) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    columns = client_api_keys.c
    return columns.workspace == workspace, columns.encrypted_key == key.token


def _read(row: Row[Any], vault: Vault) -> StoredKey:
    secret = vault.decrypt(row.encrypted_key, row.workspace)
    return StoredKey(secret, row.updated_at, row.verified_at, bytes(row.encrypted_key))


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
    with exclusive(engine, "kpi:secret-key"):
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
