"""Whom a key belongs to: asked before its numbers are first believed, and once a day."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from pydantic import SecretStr

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import (
    BisonClient,
    RejectedKey,
    WorkspaceGone,
    WorkspaceReader,
    WorkspaceRef,
    WrongWorkspace,
)
from kpi_pipeline.db.api_keys import StoredKey, mark_key, stored_keys
from kpi_pipeline.db.clients import Client
from kpi_pipeline.db.retry import retry_on_disconnect

T = TypeVar("T")

# The nightly refresh of the registry looks at every key. A sync asks by itself only where that did
# not happen: a day, and the hour by which one day of the year is longer, and some for the run.
BELIEVED_FOR = timedelta(hours=26)


def reference(client: Client) -> WorkspaceRef:
    """The client as the room `bison` knows it."""
    return WorkspaceRef(client.workspace, client.instance, client.bison_workspace_id)


def is_due(key: StoredKey, now: datetime) -> bool:
    """Whether it is time to ask again whom the key belongs to."""
    return key.verified_at is None or now - key.verified_at > BELIEVED_FOR


async def confirm_key(
    app: AppContext, bison: BisonClient, client: Client, secret: SecretStr
) -> None:
    """Ask in which workspace a client's stored key acts, and note the answer.

    Raises:
        RejectedKey, WrongWorkspace, WorkspaceGone: if it is no key of the client's workspace; it is
            then asked about again before its numbers are believed.
        BisonError: if the call failed otherwise. That says nothing of the key, and what was known
            of it stays.
    """
    try:
        await bison.check_key(reference(client), secret)
    except (RejectedKey, WrongWorkspace, WorkspaceGone):
        await asyncio.to_thread(_note, app, client, None)
        raise
    await asyncio.to_thread(_note, app, client, app.now())


def key_of(app: AppContext, client: Client) -> StoredKey | None:
    """The client's own key, if it has one.

    Raises:
        KpiError: if it can't be decrypted.
    """
    with app.engine.connect() as connection:
        keys = stored_keys(connection, [client.workspace], app.vault)
    return keys.get(client.workspace)


async def read_client(
    app: AppContext,
    bison: BisonClient,
    client: Client,
    read: Callable[[WorkspaceReader], Awaitable[T]],
) -> T:
    """Run `read` in the client's workspace, with its own key or else with the master key.

    A key of its own that was not seen to act in the client's workspace for a day is looked at
    first.

    Raises:
        KpiError: if the key can't be decrypted.
        BisonError: if a call failed for good, or answered something that can't be believed.
    """
    key = await asyncio.to_thread(retry_on_disconnect, partial(key_of, app, client))
    if key is not None and is_due(key, app.now()):
        await confirm_key(app, bison, client, key.secret)
    reading = await bison.read_as(reference(client), key.secret if key else None, read)
    return reading.value


def _note(app: AppContext, client: Client, verified_at: datetime | None) -> None:
    def note() -> None:
        with app.engine.begin() as connection:
            mark_key(connection, client.workspace, verified_at)

    retry_on_disconnect(note)
