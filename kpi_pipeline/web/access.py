"""Finds who is asking: users, sessions and API tokens in the database, passwords in the settings.

A request takes one query at most, and what was found holds for five seconds without one. So what
another process removes is let in for five seconds more.
"""

import hashlib
import hmac
import json
import logging
import secrets
from collections.abc import Callable, Hashable
from datetime import timedelta
from functools import partial
from time import monotonic
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from kpi_pipeline.db import web as stored
from kpi_pipeline.db.server.engine import reason_of
from kpi_pipeline.db.server.retry import retry_on_disconnect
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings
from kpi_pipeline.settings.web import is_loopback
from kpi_pipeline.web.login import Throttle
from kpi_pipeline.web.passwords import (
    hash_password,
    is_outdated,
    new_session_token,
    token_hash,
    verify_password,
)
from kpi_pipeline.web.visitor import COMMAND, SHARED_NAMES, Role, Visitor, is_user_name

SESSION_LASTS = timedelta(days=14)
_KEPT_SECONDS = 5.0
_MOST_KEPT = 4096
# Each takes 64 MiB of memory.
_HASHES_AT_ONCE = 2

_log = logging.getLogger(__name__)
T = TypeVar("T")


class UsersUnreachableError(Exception):
    """The database with the users did not answer."""


class Access:
    """Finds the visitors of a page that listens on `address`."""

    def __init__(self, settings: Settings, engine: Engine, address: str) -> None:
        self._engine = engine
        self._shared = {
            role: it.get_secret_value()
            for role, it in (
                (Role.EDITOR, settings.web_password),
                (Role.VIEWER, settings.web_reader_password),
            )
            if it is not None
        }
        self._needs_login = bool(self._shared) or not is_loopback(address)
        self._throttle = Throttle(monotonic)
        self._recent = _Recent(monotonic)
        self._asked_until = 0.0
        self._secret = secrets.token_bytes(32)
        self._hashing = CapacityLimiter(_HASHES_AT_ONCE)

    @property
    def has_shared_password(self) -> bool:
        """Whether the settings have a password, which needs no user's name."""
        return bool(self._shared)

    async def needs_login(self) -> bool:
        """Whether visitors have to log in: with a password in the settings, or any user.

        Once they have to, they do until the process ends: to remove the last user opens no page.
        """
        if not self._needs_login and self._asked_until <= monotonic():
            try:
                # Another request may have found a user meanwhile.
                if await self._read(stored.has_users):
                    self._needs_login = True
            except UsersUnreachableError:
                if not self._asked_until:
                    raise
            self._asked_until = monotonic() + _KEPT_SECONDS
        return self._needs_login

    async def by_session(self, token: str) -> Visitor | None:
        """The visitor whose cookie holds this token."""
        key = token_hash(token)
        if (found := self._recent.get(key)) is None and token:
            session = await self._read(partial(stored.read_session, token_hash=key))
            found = None if session is None else self._of_session(session, token)
            self._recent.put(key, found)
        return found

    async def by_api_token(self, token: str) -> Visitor | None:
        """The visitor whose program sends this token."""
        key = token_hash(token)
        if (found := self._recent.get(key)) is None:
            user = await self._write(partial(stored.use_token, token_hash=key))
            found = None if user is None else Visitor(user[0], Role(user[1]), f"token {key}")
            self._recent.put(key, found)
        return found

    async def by_proxy(self, name: str) -> Visitor | None:
        """The user whom a trusted proxy names."""
        key = ("proxy", name)
        if (found := self._recent.get(key)) is None and is_user_name(name):
            user = await self._read(partial(stored.read_user, name=name))
            found = None if user is None else Visitor(name, Role(user[0]), f"proxy {name}")
            self._recent.put(key, found)
        return found

    async def by_password(self, name: str, password: str, address: str) -> Visitor | None:
        """The visitor with this name and password, which a program sends with each request.

        Raises:
            TooManyGuessesError: without comparing it.
        """
        key = hmac.digest(self._secret, json.dumps([name, password]).encode(), "sha256")
        if (found := self._recent.get(key)) is None:
            checked = await self._check(name, password, address)
            found = None if checked is None else checked[0]
            self._recent.put(key, found)
        return found

    async def log_in(self, name: str, password: str, address: str, before: str) -> str | None:
        """Begin a session, and end the one with the token `before`; the token of the new one.

        Raises:
            TooManyGuessesError: without comparing the password.
        """
        checked = await self._check(name, password, address)
        if checked is None:
            return None
        visitor, verified_hash = checked
        token = new_session_token()
        is_user = verified_hash is not None
        session = stored.Session(
            user=visitor.name if is_user else None,
            role=visitor.role.value,
            password_digest=None if is_user else self._digest(token, visitor.role),
        )

        def begin(connection: Connection) -> bool:
            stored.end_session(connection, token_hash(before))
            return stored.begin_session(
                connection, token_hash(token), session, SESSION_LASTS, verified_hash
            )

        began = await self._write(begin)
        self._recent.drop(token_hash(before))
        return token if began else None

    async def log_out(self, token: str) -> None:
        """End the session of a cookie."""
        key = token_hash(token)
        await self._write(partial(stored.end_session, token_hash=key))
        self._recent.drop(key)

    async def _check(
        self, name: str, password: str, address: str
    ) -> tuple[Visitor, str | None] | None:
        """The visitor with this name and password, and the hash of a user's password."""
        name = name.strip().lower()
        known = name if is_user_name(name) else ""
        self._throttle.require_few(address, known)
        if not name or name in SHARED_NAMES.values():
            role = self._shared_role(password)
            found = None if role is None else (_shared_visitor(role, ""), None)
            if found is None:
                self._throttle.count(address, known)
            return found
        return await self._run(
            partial(self._check_user, known, password, address), limiter=self._hashing
        )

    def _check_user(self, name: str, password: str, address: str) -> tuple[Visitor, str] | None:
        # Again, now that it is compared: many may have waited.
        self._throttle.require_few(address, name)
        with self._engine.connect() as connection:
            user = stored.read_user(connection, name) if name else None
        role, known_hash = user or ("", None)
        if not verify_password(password, known_hash) or known_hash is None:
            self._throttle.count(address, name)
            return None
        if is_outdated(known_hash):
            renewed = hash_password(password)
            with self._engine.begin() as connection:
                stored.replace_hash(connection, name, known_hash, renewed)
            known_hash = renewed
        return Visitor(name, Role(role), f"password {name}"), known_hash

    def _shared_role(self, password: str) -> Role | None:
        # Each is compared, so the time says nothing about which one it was.
        given = _sha256(password)
        found = [
            role for role, it in self._shared.items() if hmac.compare_digest(given, _sha256(it))
        ]
        return found[0] if found else None

    def _of_session(self, session: stored.Session, token: str) -> Visitor | None:
        role, key = Role(session.role), token_hash(token)
        if session.user is not None:
            return Visitor(session.user, role, key, can_log_out=True)
        if session.password_digest is None:
            return Visitor(COMMAND, role, key)
        same = hmac.compare_digest(session.password_digest, self._digest(token, role))
        return _shared_visitor(role, key) if same else None

    def _digest(self, token: str, role: Role) -> str:
        """Of the settings' passwords: a changed one ends their sessions.

        The token is the key, and is not stored: nobody can guess a password from the digest.
        """
        text = json.dumps([role.value, *(self._shared.get(it) for it in Role)])
        return hmac.digest(token.encode(), text.encode(), "sha256").hex()

    async def _read(self, work: Callable[[Connection], T]) -> T:
        def read() -> T:
            with self._engine.connect() as connection:
                return work(connection)

        return await self._run(read)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        def write() -> T:
            with self._engine.begin() as connection:
                return work(connection)

        return await self._run(write)

    async def _run(self, work: Callable[[], T], limiter: CapacityLimiter | None = None) -> T:
        try:
            return await to_thread.run_sync(work, limiter=limiter)
        except (DBAPIError, PoolTimeoutError) as error:
            reason = reason_of(error) if isinstance(error, DBAPIError) else "no connection is free"
            _log.warning("The users of the pages cannot be read: %s", reason)
            raise UsersUnreachableError from error


class _Recent:
    """The visitors that were found in the last five seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._found: dict[Hashable, tuple[float, Visitor]] = {}

    def get(self, key: Hashable) -> Visitor | None:
        until, visitor = self._found.get(key, (0.0, None))
        return visitor if until > self._now() else None

    def put(self, key: Hashable, visitor: Visitor | None) -> None:
        if visitor is None:
            return
        if len(self._found) >= _MOST_KEPT:
            self._found.clear()
        self._found[key] = (self._now() + _KEPT_SECONDS, visitor)

    def drop(self, key: Hashable) -> None:
        self._found.pop(key, None)


def require_login(settings: Settings, engine: Engine, address: str, setting: str) -> None:
    """Let a page listen on an address that other machines reach only if it has a login.

    Raises:
        KpiError: naming the `setting` of the address, if there is neither a password nor a user.
    """
    if settings.web_password is not None or is_loopback(address):
        return

    def read() -> bool:
        with engine.connect() as connection:
            return stored.has_users(connection)

    if not retry_on_disconnect(read):
        raise KpiError(
            f"{setting}: other machines reach the page at {address}, so it needs a login: add a "
            "user with `kpi users add NAME --role editor`, or set KPI_WEB_PASSWORD."
        )


def session_cookie(database: URL, scheme: str) -> str:
    """The name of the cookie that holds the token of a session.

    Two installations on one host have cookies of their own, as cookies know no ports. Over TLS,
    browsers take one with this prefix from this host alone, and from no other of its domain.
    """
    parts = (database.host, database.port, database.database, database.query.get("host"))
    name = f"kpi_session_{hashlib.sha256(repr(parts).encode()).hexdigest()[:8]}"
    return f"__Host-{name}" if scheme in ("https", "wss") else name


def _shared_visitor(role: Role, key: str) -> Visitor:
    name = SHARED_NAMES[role]
    return Visitor(name, role, key or f"password {name}", can_log_out=bool(key))


def _sha256(text: str) -> bytes:
    # Of equal length, so the time of comparing them does not tell the length of the password.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
