"""What a login is given, and how often wrong passwords are compared."""

import base64
import binascii
import ipaddress
import time
from collections import deque
from collections.abc import Callable

_WINDOW_SECONDS = 600.0
_GUESSES_OF_AN_ADDRESS = 10
_GUESSES_AT_A_NAME = 20
_GUESSES_OF_ALL = 100


class TooManyGuessesError(Exception):
    """Passwords were guessed too often; `seconds` is when the next one is compared."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class Throttle:
    """Counts wrong passwords.

    Ten from an address within ten minutes, twenty for a user's name, or a hundred in all, and none
    is compared until the oldest is ten minutes old. `now` is in seconds, of a clock that never goes
    back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        # The time, the address and the user's name of each; hardly longer than the limit of all.
        self._wrong: deque[tuple[float, str, str]] = deque()

    def require_few(self, address: str, name: str) -> None:
        """Let a password be compared; `name` is empty for one without a user.

        Raises:
            TooManyGuessesError: if there were too many wrong ones.
        """
        begin = self._now() - _WINDOW_SECONDS
        while self._wrong and self._wrong[0][0] <= begin:
            self._wrong.popleft()
        source, wrong = _network(address), list(self._wrong)
        counted = (
            ([at for at, its, _ in wrong if its == source], _GUESSES_OF_AN_ADDRESS),
            ([at for at, _, its in wrong if name and its == name], _GUESSES_AT_A_NAME),
            ([at for at, _, _ in wrong], _GUESSES_OF_ALL),
        )
        limits = [times[-limit] - begin for times, limit in counted if len(times) >= limit]
        if limits:
            raise TooManyGuessesError(max(limits))

    def count(self, address: str, name: str) -> None:
        """Note a wrong password."""
        self._wrong.append((self._now(), _network(address), name))


def basic_credentials(header: str) -> tuple[str, str] | None:
    """The name and the password of an Authorization header of the kind Basic."""
    kind, _, encoded = header.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, password


def bearer_token(header: str) -> str | None:
    """The token of an Authorization header of the kind Bearer."""
    kind, _, token = header.partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _network(address: str) -> str:
    """The address; of IPv6 its first half, as one customer has all of the second."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))
