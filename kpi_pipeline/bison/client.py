import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Self, TypeVar

import httpx
from pydantic import SecretStr

from kpi_pipeline.bison import errors
from kpi_pipeline.bison.answers import acting_workspace, new_key
from kpi_pipeline.bison.call_stats import CallStats, counting_calls, waiting_for
from kpi_pipeline.bison.calls import Access, Call, Caller
from kpi_pipeline.bison.errors import MissingKey, WrongWorkspace
from kpi_pipeline.bison.master_key import SWITCH, WHO_AM_I, MasterKeyReading
from kpi_pipeline.bison.model import (
    BisonInstance,
    ClientOptions,
    KeyUse,
    Reading,
    Workspace,
    WorkspaceRef,
)
from kpi_pipeline.bison.pages import ListedWorkspaces
from kpi_pipeline.bison.protocols import MasterKeyLock, Pacing
from kpi_pipeline.bison.reader import Session, WorkspaceReader

_CONNECT_SECONDS = 10.0
_LIST = Call("GET", "/api/workspaces/v1.1")

_log = logging.getLogger(__name__)

T = TypeVar("T")


def _utc_now() -> datetime:
    return datetime.now(UTC)


@cache
def _certificates() -> ssl.SSLContext:
    """The trusted certificates, read once in a process: each reading takes 45 ms of processor."""
    return httpx.create_ssl_context()


class BisonClient:
    """Calls one Email Bison instance; use it as an async context manager.

    Any number of reads may run side by side on one client. `transport` replaces the network, `now`
    gives instants in UTC, and `sleep` waits between polls of a slow switch.
    """

    def __init__(
        self,
        instance: BisonInstance,
        *,
        pacing: Pacing,
        master_lock: MasterKeyLock,
        options: ClientOptions = ClientOptions(),  # noqa: B008 - frozen
        transport: httpx.AsyncBaseTransport | None = None,
        now: Callable[[], datetime] = _utc_now,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._instance = instance
        self._master_lock = master_lock
        self._options = options
        self._sleep = sleep
        seconds = options.timeout_seconds
        self._http = httpx.AsyncClient(
            base_url=instance.base_url,
            verify=_certificates(),
            headers={"Accept": "application/json"},
            timeout=httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS)),
            follow_redirects=False,
            # A session cookie from one key's answer must not travel with another key's request.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            transport=transport,
        )
        self._caller = Caller(self._http, pacing, options, now)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(kind, error, traceback)

    @property
    def calls_made(self) -> int:
        """HTTP requests sent so far, retries included."""
        return self._caller.calls_made

    @property
    def unknown_fields(self) -> Mapping[tuple[str, str], int]:
        """(call, field) → how many answers held that undocumented field."""
        return self._caller.unknown_fields

    async def list_workspaces(self) -> list[Workspace]:
        """Every workspace that the master key can see, over all pages.

        Raises:
            MissingKey: if the instance has no master key.
            BisonError: if a call fails, or the pages make no whole list.
        """
        session = Session(self._caller, self._master_access(None, _LIST))
        async with self._master_key():
            rows = await session.rows(_LIST, ListedWorkspaces)
        return [row.workspace() for row in rows]

    async def create_key(self, ref: WorkspaceRef, name: str) -> SecretStr:
        """Create an API key for the client's workspace, with the master key; one call, no switch.

        `name` is the label of the key in Email Bison. The key works at once, and no other call
        ever shows it again. `check_key` verifies that it is the right workspace's.

        Raises:
            MissingKey: if the instance has no master key.
            BisonError: if the call fails. One without an answer is not retried: it may have
                created a key.
        """
        self._require_own_instance(ref)
        path = f"{_LIST.path}/{ref.bison_workspace_id}/api-tokens"
        call = Call("POST", path, json={"name": name}, repeatable=False)
        access = self._master_access(ref, call, errors.MISSING_MASTER_KEY)
        async with self._master_key():
            return (await self._caller.call(call, access, new_key)).value

    async def check_key(self, ref: WorkspaceRef, key: SecretStr) -> None:
        """Verify that an API key belongs to the client's workspace.

        Raises:
            WrongWorkspace: if it belongs to another one; the message names both.
            BisonError: if the call fails, RejectedKey for a key that is not valid.
            ValueError: if the client belongs to another instance.
        """
        self._require_own_instance(ref)
        access = Access(self._instance.name, ref, key, KeyUse.WORKSPACE)
        acting = (await self._caller.call(WHO_AM_I, access, acting_workspace)).value
        if acting.id != ref.bison_workspace_id:
            raise WrongWorkspace(
                access.client,
                str(WHO_AM_I),
                f"shows that the key belongs to workspace {acting}, "
                f"not to {ref.bison_workspace_id}",
                errors.WRONG_REGISTRY,
            )

    async def read_as(
        self,
        ref: WorkspaceRef,
        key: SecretStr | None,
        read: Callable[[WorkspaceReader], Awaitable[T]],
    ) -> Reading[T]:
        """Run `read` in the client's workspace, with `key` or, if that is None, the master key.

        With the master key the instance's lock is held throughout, and the value counts only if
        the key acts in the right workspace before and after it; `read` may run again.

        Raises:
            MissingKey: if the client has no key and the instance no master key.
            WrongWorkspace: if the master key can't be kept in the client's workspace.
            BisonError: any other error of the calls.
            ValueError: if the client belongs to another instance.
        """
        self._require_own_instance(ref)
        with counting_calls(CallStats()) as stats:
            if key is not None:
                access = Access(self._instance.name, ref, key, KeyUse.WORKSPACE)
                _log.info("%s: reading with its workspace key", ref.workspace)
                value = await read(self._reader(access))
            else:
                access = self._master_access(ref, SWITCH)
                reading = MasterKeyReading(
                    self._caller, access, ref, self._options.switch_timeout_seconds, self._sleep
                )
                async with self._master_key():
                    _log.info("%s: reading with the master key", ref.workspace)
                    value = await reading.read(lambda: read(self._reader(access)))
        return Reading(value=value, key_used=access.use, calls=stats.made)

    def _master_key(self) -> AbstractAsyncContextManager[None]:
        return waiting_for(self._master_lock.held(self._instance.name))

    def _require_own_instance(self, ref: WorkspaceRef) -> None:
        # Ids repeat across instances, so the wrong host would answer with another client's numbers.
        if ref.instance != self._instance.name:
            raise ValueError(
                f"{ref.workspace} is a client of instance {ref.instance}, "
                f"and this is instance {self._instance.name}"
            )

    def _reader(self, access: Access) -> WorkspaceReader:
        return WorkspaceReader(Session(self._caller, access), self._options.series_max_days)

    def _master_access(
        self, ref: WorkspaceRef | None, call: Call, remedy: str = errors.MISSING_KEY
    ) -> Access:
        key = self._instance.master_key
        if key is None:
            name = self._instance.name
            raise MissingKey(
                ref.workspace if ref else f"instance {name}",
                str(call),
                f"was not sent: {'the client has no API key, and ' if ref else ''}"
                f"instance {name} has no master key",
                remedy if ref else errors.MISSING_MASTER_KEY,
            )
        return Access(self._instance.name, ref, key, KeyUse.MASTER)
