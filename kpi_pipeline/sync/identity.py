"""Verifies which workspace an API key acts in: before its first use, and then once a day."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import (
    BisonClient,
    RejectedKey,
    WorkspaceGone,
    WorkspaceReader,
    WorkspaceRef,
    WrongWorkspace,
)
from kpi_pipeline.db.registry.api_keys import StoredKey, mark_key, stored_keys
from kpi_pipeline.db.registry.clients import Client
from kpi_pipeline.db.server.retry import retry_on_disconnect

T = TypeVar("T")

# The nightly refresh of the registry verifies every API key. A sync verifies a key only if that did
# not happen: a day, plus the hour by which one day of the year is longer, plus an hour for the run.
VERIFIED_FOR = timedelta(hours=26)


def workspace_ref(client: Client) -> WorkspaceRef:
    """The client in the terms of the `bison` package."""
    return WorkspaceRef(client.workspace, client.instance, client.bison_workspace_id)


def needs_verification(key: StoredKey, now: datetime) -> bool:
    """Whether the API key was never verified, too long ago, or by a clock that ran ahead."""
    return key.verified_at is None or not now - VERIFIED_FOR <= key.verified_at <= now


async def confirm_key(app: AppContext, bison: BisonClient, client: Client, key: StoredKey) -> None:
    """Ask Email Bison which workspace a client's stored API key acts in, and store the result.

    A key that was stored in its place meanwhile stays as it is.

    Raises:
        RejectedKey, WrongWorkspace, WorkspaceGone: if it is no API key of the client's workspace.
            It is then verified again before its numbers are used.
        BisonError: if the call failed otherwise. That says nothing about the API key, so the stored
            result stays as it is.
    """
    try:
        await bison.check_key(workspace_ref(client), key.secret)
    except (RejectedKey, WrongWorkspace, WorkspaceGone):
        await asyncio.to_thread(_store_result, app, client, key, None)
        raise
    await asyncio.to_thread(_store_result, app, client, key, app.now())


def own_key(app: AppContext, client: Client) -> StoredKey | None:
    """The client's own API key, if it has one.

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
    """Run `read` in the client's workspace, with its own API key or else with the master key.

    An own key that was not verified within the last day is verified first.

    Raises:
        KpiError: if the API key can't be decrypted.
        BisonError: if a call failed for good, or its answer is not valid.
    """
    key = await asyncio.to_thread(retry_on_disconnect, partial(own_key, app, client))
    if key is not None and needs_verification(key, app.now()):
        await confirm_key(app, bison, client, key)
    reading = await bison.read_as(workspace_ref(client), key.secret if key else None, read)
    return reading.value


def _store_result(
    app: AppContext, client: Client, key: StoredKey, verified_at: datetime | None
) -> None:
    def store() -> None:
        with app.engine.begin() as connection:
            mark_key(connection, client.workspace, key, verified_at)

    retry_on_disconnect(store)
