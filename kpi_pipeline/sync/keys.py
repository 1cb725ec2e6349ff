"""Clients' own API keys: created with the master key, stored encrypted, and verified."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import (
    BisonClient,
    BisonError,
    RejectedKey,
    WorkspaceGone,
    WrongWorkspace,
)
from kpi_pipeline.db.coordination.locks import lock_client
from kpi_pipeline.db.registry.api_keys import StoredKey, drop_key, key_number, store_keys
from kpi_pipeline.db.registry.clients import Client
from kpi_pipeline.errors import KpiError
from kpi_pipeline.sync.identity import confirm_key, own_key, workspace_ref

# The name of the API key in Email Bison's own pages.
KEY_NAME = "kpi_pipeline"
_UNUSED = "Key {} was made and is not used; delete it there."


@dataclass(frozen=True)
class KeyOutcome:
    """Result of the work on one client's API key.

    `number` is the part of the API key before its pipe, as Email Bison's pages show it; `error` is
    a sentence, or None on success.
    """

    client: Client
    number: str | None = None
    error: str | None = None


KeyWork = Callable[[AppContext, BisonClient, Client], Awaitable[KeyOutcome]]


async def for_each(
    app: AppContext, clients: Sequence[Client], work: KeyWork
) -> AsyncIterator[KeyOutcome]:
    """Do `work` for one client after another; yield each outcome as soon as it is known."""
    async with AsyncExitStack() as stack:
        opened: dict[str, BisonClient] = {}
        for client in clients:
            name = client.instance
            try:
                if name not in opened:
                    bison = app.bison_client(app.instance(name))
                    opened[name] = await stack.enter_async_context(bison)
            except KpiError as error:
                yield KeyOutcome(client, error=str(error))
                continue
            yield await work(app, opened[name], client)


async def create_key(app: AppContext, bison: BisonClient, client: Client) -> KeyOutcome:
    """Create an API key for a client that has none.

    It is stored as soon as it is created, because Email Bison never shows it again, and then
    verified. If it is no key of the client's workspace, it is dropped, and the client's data still
    comes through the master key.
    """
    number, key = None, None
    try:
        secret = await bison.create_key(workspace_ref(client), KEY_NAME)
        number = key_number(secret)
        key = _store(app, client, secret)
        await confirm_key(app, bison, client, key)
    except (WrongWorkspace, RejectedKey, WorkspaceGone) as error:
        if key is None:
            return KeyOutcome(client, error=str(error))
        with app.engine.begin() as connection:
            drop_key(connection, client.workspace, key)
        return KeyOutcome(client, number, f"{error} {_UNUSED.format(number)}")
    except (BisonError, KpiError) as error:
        stored = f" Key {number} is stored, and verified before its first use." if number else ""
        return KeyOutcome(client, number, f"{error}{stored}")
    return KeyOutcome(client, number)


async def rotate_key(app: AppContext, bison: BisonClient, client: Client) -> KeyOutcome:
    """Replace a client's own API key; the old one stays in use until the new one is verified."""
    number = None
    try:
        secret = await bison.create_key(workspace_ref(client), KEY_NAME)
        number = key_number(secret)
        await bison.check_key(workspace_ref(client), secret)
    except (BisonError, KpiError) as error:
        unused = f" {_UNUSED.format(number)}" if number else ""
        return KeyOutcome(client, number, f"{error} The client keeps the key it had.{unused}")
    _store(app, client, secret, verified_at=app.now())
    return KeyOutcome(client, number)


async def check_key(app: AppContext, bison: BisonClient, client: Client) -> KeyOutcome:
    """Ask Email Bison which workspace a client's stored API key acts in, and store the result."""
    number = None
    try:
        key = own_key(app, client)
        if key is None:
            raise KpiError("It has no key of its own any more.")
        number = key.number
        await confirm_key(app, bison, client, key)
    except (BisonError, KpiError) as error:
        return KeyOutcome(client, number, str(error))
    return KeyOutcome(client, number)


def _store(
    app: AppContext, client: Client, secret: SecretStr, verified_at: datetime | None = None
) -> StoredKey:
    with app.engine.begin() as connection:
        lock_client(connection, client.workspace)
        secrets = {client.workspace: secret}
        keys = store_keys(connection, secrets, app.vault, verified_at=verified_at)
    return keys[client.workspace]
