"""Limits of a server's connections, so that those that do nothing lock nobody out.

uvicorn limits the number of connections alone: a thousand idle ones would have every request
answered 503.
"""

import asyncio
import logging
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from itertools import chain
from typing import Any, cast

import h11
from starlette.responses import JSONResponse
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

HEAD_SECONDS = 10.0
# Each may hold a body of a mebibyte in memory.
MAX_CONNECTIONS = 1_000
MAX_OF_ONE_ADDRESS = 250
# How long, and up to how many bytes, a body that was rejected is read and thrown away.
LINGER_SECONDS = 10.0
LINGER_BYTES = 16 * 1024 * 1024
RETRY_AFTER_SECONDS = 10
# A server has other files open, too: connections to the database, its log, and so on.
_OTHER_FILES = 100
_WARNING_SECONDS = 60.0
# As many addresses of IPv6 belong to one customer of a provider.
_IPV6_PREFIX = 64

_log = logging.getLogger(__name__)
_unavailable = JSONResponse(
    {"error": "Try again later: too many requests are being answered."},
    503,
    {"Connection": "close", "Retry-After": str(RETRY_AFTER_SECONDS)},
)


class Connections:
    """The open connections of one server, and which of them lose when there are too many.

    Beyond `MAX_CONNECTIONS`, and beyond `MAX_OF_ONE_ADDRESS`, a new connection closes the one that
    its peer has kept waiting for longest: without a request yet, then between two requests, then
    with half a body or an answer that is not read. If all others are being answered, they stay, and
    the new one's request is answered 503. The addresses and networks `unlimited`, such as a proxy
    that brings everybody's requests, have no limit of their own.
    """

    def __init__(self, unlimited: Iterable[str] = ()) -> None:
        self._unlimited = [ip_network(it) for it in unlimited]
        self._most = max(1, min(MAX_CONNECTIONS, _available_files() - _OTHER_FILES))
        # In the order in which they came to be so; each connection is in one of the three.
        self._unused: dict[Connection, None] = {}
        self._kept: dict[Connection, None] = {}
        self._asking: dict[Connection, None] = {}
        # Those of each address that has a limit, and the address of each of them.
        self._of_address: dict[str, set[Connection]] = {}
        self._address: dict[Connection, str] = {}
        self._warned_at = float("-inf")

    def open(self, connection: "Connection") -> None:
        """Take in a new connection, and close another if there are too many."""
        self._unused[connection] = None
        if address := self._limited(connection):
            self._address[connection] = address
            of_address = self._of_address.setdefault(address, set())
            of_address.add(connection)
            if len(of_address) > MAX_OF_ONE_ADDRESS:
                self._close_one(it for it in self._longest_first() if it in of_address)
        if len(self._unused) + len(self._kept) + len(self._asking) > self._most:
            self._close_one(self._longest_first())

    def has_room(self, connection: "Connection") -> bool:
        """Whether one more request may be answered, which comes on this connection."""
        of_address = self._of_address.get(self._address.get(connection, ""), set())
        asking = sum(it in self._asking for it in of_address)
        return len(self._asking) < self._most and asking < MAX_OF_ONE_ADDRESS

    def begin(self, connection: "Connection") -> None:
        """The connection has the head of a request, which is being answered."""
        self._forget(connection)
        self._asking[connection] = None

    def end(self, connection: "Connection", *, kept: bool) -> None:
        """Its request is answered; unless it is `kept` for others, it closes soon."""
        self._forget(connection)
        (self._kept if kept else self._unused)[connection] = None

    def close(self, connection: "Connection") -> None:
        """The connection is closed."""
        self._forget(connection)
        if address := self._address.pop(connection, None):
            self._of_address[address].discard(connection)
            if not self._of_address[address]:
                del self._of_address[address]

    def _longest_first(self) -> Iterable["Connection"]:
        return chain(self._unused, self._kept, self._asking)

    def _forget(self, connection: "Connection") -> None:
        for kind in (self._unused, self._kept, self._asking):
            kind.pop(connection, None)

    def _close_one(self, candidates: Iterable["Connection"]) -> None:
        # The new one is the last of those without a request, and has had no time to send one.
        newest = next(reversed(self._unused))
        found = (it for it in candidates if it is not newest and it.waits_for_peer)
        if longest := next(found, None):
            longest.drop()
            self.close(longest)
        now = time.monotonic()
        if now > self._warned_at + _WARNING_SECONDS:
            self._warned_at = now
            _log.warning(
                "Too many connections are open (%d may be, and %d from one address): those that "
                "wait for their senders are closed, the longest first.",
                self._most,
                MAX_OF_ONE_ADDRESS,
            )

    def _limited(self, connection: "Connection") -> str | None:
        """The address of the connection, if it has a limit."""
        if connection.client is None:
            return None
        try:
            address = ip_address(connection.client[0].partition("%")[0])
        except ValueError:
            return None
        if isinstance(address, IPv6Address):
            address = address.ipv4_mapped or address
        if any(address in it for it in self._unlimited):
            return None
        if isinstance(address, IPv6Address):
            return str(ip_network((address, _IPV6_PREFIX), strict=False))
        return str(address)


class Connection(H11Protocol):
    """uvicorn's protocol for one connection, with limits that uvicorn lacks.

    - Without a whole head within `HEAD_SECONDS`, or twice that for a later request, it is closed.
      Bodies have limits of their own.
    - An answer that is sent before the whole body has come is not lost: what its sender still sends
      is read and thrown away for a while. Closed at once, the connection would be reset, and a
      sender that reads its answer after its body would never see it.
    - A request with both `Content-Length` and `Transfer-Encoding` is the last one (RFC 9112, 6.1):
      a proxy may have read the end of its body elsewhere.
    """

    _transport: asyncio.Transport
    _timer: asyncio.TimerHandle | None = None
    _request_before: object = None
    # How many bytes are still thrown away; None before the last answer.
    _lingering: int | None = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        connections: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._all = connections

    @property
    def waits_for_peer(self) -> bool:
        """Whether the next step is the peer's: to send its request, or to read its answer."""
        request = self._request
        if request is None or request.response_complete or request.more_body:
            return True
        return self.flow.write_paused

    def drop(self) -> None:
        """Close it in favour of another."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count it, and start the timer of its first head."""
        self._transport = transport
        # Only `close` and `is_closing` are ours.
        super().connection_made(cast(asyncio.Transport, _Lingering(transport, self)))
        self._all.open(self)
        self._timer = self.loop.call_later(HEAD_SECONDS, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._all.close(self)
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Handle what has come, or throw it away after the last answer."""
        if self._lingering is None:
            super().data_received(data)
            return
        self._lingering -= len(data)
        if self._lingering < 0:
            self._transport.abort()

    def handle_events(self) -> None:
        """Begin a request as soon as its head is whole."""
        before = self.cycle
        app: ASGIApp = self.config.loaded_app if self._all.has_room(self) else _unavailable
        self.app = cast(Any, app)
        super().handle_events()
        if self.cycle is before or self._lingering is not None:
            return
        self._all.begin(self)
        names = {name for name, _ in self.headers}
        if {b"content-length", b"transfer-encoding"} <= names:
            # As if the peer had asked for it. The answer is not begun yet.
            self.headers.append(CLOSE_HEADER)

    def on_response_complete(self) -> None:
        """Keep the connection for further requests, unless it is closing."""
        if self._lingering is None and not self._transport.is_closing():
            self._all.end(self, kept=True)
        super().on_response_complete()

    def shutdown(self) -> None:
        """Close as soon as the active request is answered: the server stops."""
        if self._lingering is None:
            super().shutdown()
        else:
            self._transport.close()

    def close(self) -> None:
        """Close once all is sent; if the peer may still be sending, read that first."""
        if self._lingering is not None or self._transport.is_closing():
            return
        sending = self.conn.their_state in (h11.SEND_BODY, h11.ERROR)
        if not (sending or self.conn.trailing_data[0]):
            self._transport.close()
            return
        self._lingering = LINGER_BYTES
        self._all.end(self, kept=False)
        self._transport.resume_reading()
        # The peer reads the end of the answer, and closes its side; that closes the connection.
        self._transport.write_eof()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(LINGER_SECONDS, self._transport.abort)

    @property
    def is_closing(self) -> bool:
        """Whether no further request is read."""
        return self._lingering is not None or self._transport.is_closing()

    @property
    def _request(self) -> Any:
        # None before the first one, which uvicorn's types don't say.
        return self.cycle

    def _check(self) -> None:
        request = self._request
        between = request is None or request.response_complete
        # uvicorn itself closes a connection that idles between two requests.
        idle = self.timeout_keep_alive_task is not None
        if between and not idle and request is self._request_before:
            self._transport.close()
            return
        self._request_before = request if between else object()
        self._timer = self.loop.call_later(HEAD_SECONDS, self._check)


class _Lingering:
    """A transport whose `close` is that of its connection: uvicorn calls it in several places."""

    def __init__(self, transport: asyncio.Transport, connection: Connection) -> None:
        self._transport = transport
        self._connection = connection

    def close(self) -> None:
        self._connection.close()

    def is_closing(self) -> bool:
        return self._connection.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def protocol(unlimited: Sequence[str]) -> Callable[..., Connection]:
    """What makes the connections of one server; see `Connections` for `unlimited`."""
    connections = Connections(unlimited)

    def connect(*args: Any, **kwargs: Any) -> Connection:
        return Connection(*args, **kwargs, connections=connections)

    return connect


def _available_files() -> int:
    """How many files this process may open, after it has asked for enough."""
    wanted = MAX_CONNECTIONS + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    allowed = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed
