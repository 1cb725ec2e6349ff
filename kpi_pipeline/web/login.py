"""Who may do what: one password for people who may change things, one for those who may read."""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import time
from collections import deque
from collections.abc import Callable, Mapping

from pydantic import SecretStr

from kpi_pipeline.web.visitor import Role

_WINDOW_SECONDS = 600.0
_GUESSES_OF_AN_ADDRESS = 10
_GUESSES_OF_ALL = 100


class TooManyGuessesError(Exception):
    """Passwords were guessed too often; `seconds` is when the next one is compared."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class Passwords:
    """Compares passwords, in constant time, and a limited number of wrong ones.

    Ten wrong ones from an address within ten minutes, or a hundred from all, and none is compared
    until the oldest is ten minutes old. `now` is in seconds, of a clock that never goes back.
    """

    def __init__(
        self, roles: Mapping[Role, SecretStr], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._digests = {
            role: _digest(password.get_secret_value()) for role, password in roles.items()
        }
        self._now = now
        # Never longer than the limit of all: the time and the address of each wrong guess.
        self._wrong: deque[tuple[float, str]] = deque()

    def role(self, password: str, address: str) -> Role | None:
        """The role that this password gives; None if it is wrong.

        Raises:
            TooManyGuessesError: without comparing it.
        """
        source = _network(address)
        self._require_few_guesses(source)
        given = _digest(password)
        # Each is compared, so the time says nothing about which one it was.
        found = [it for it, known in self._digests.items() if hmac.compare_digest(given, known)]
        if not found:
            self._wrong.append((self._now(), source))
            return None
        return found[0]

    def _require_few_guesses(self, source: str) -> None:
        begin = self._now() - _WINDOW_SECONDS
        while self._wrong and self._wrong[0][0] <= begin:
            self._wrong.popleft()
        own = [at for at, its in self._wrong if its == source]
        limits = [
            times[-limit] - begin
            for times, limit in (
                (own, _GUESSES_OF_AN_ADDRESS),
                ([at for at, _ in self._wrong], _GUESSES_OF_ALL),
            )
            if len(times) >= limit
        ]
        if limits:
            raise TooManyGuessesError(max(limits))


def basic_password(header: str) -> str | None:
    """The password in an Authorization header of the kind Basic; the user's name is not used."""
    kind, _, encoded = header.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        return base64.b64decode(encoded.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _digest(password: str) -> bytes:
    # Of equal length, so the time of comparing them does not tell the length of the password.
    return hashlib.sha256(password.encode("utf-8", "surrogatepass")).digest()


def _network(address: str) -> str:
    """The address; of IPv6 its first half, as one customer has all of the second."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))
