import re
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

KeyKind = Literal["master", "workspace", "none", "rejected"]

_KEPT = 50_000
_KEY_ID = re.compile(r"(\d{1,12})\|")
_KEY_LIKE = re.compile(r"(\d+)(\||%7C)\w{20,}", re.IGNORECASE)


@dataclass
class Call:
    """One call of the API.

    `status` and `answered_at` are None while it is under way; `answered_at` is when the last of
    the answer was sent, or when the call ended without one. `fault` is the kind that struck it.
    """

    at: datetime
    method: str
    path: str
    query: str
    key: KeyKind
    key_id: int | None
    workspace_id: int | None = None
    status: int | None = None
    answered_at: datetime | None = None
    fault: str | None = None


class CallLog:
    """The calls since the last reset, in the order of their arrival; the last 50,000 are kept."""

    def __init__(self) -> None:
        self.total = 0
        self._calls: deque[Call] = deque(maxlen=_KEPT)

    def add(self, call: Call) -> None:
        """Keep a call that has just arrived."""
        call.path, call.query = without_secrets(call.path), without_secrets(call.query)
        self.total += 1
        self._calls.append(call)

    def calls(self) -> list[Call]:
        """The calls that are kept, first come first."""
        return list(self._calls)

    def reset(self) -> None:
        """Forget all calls."""
        self.total = 0
        self._calls.clear()


def key_id_of(token: str) -> int | None:
    """The part of a token before its pipe, which is no secret; None where there is none."""
    found = _KEY_ID.match(token)
    return int(found[1]) if found else None


def without_secrets(text: str) -> str:
    """The text with the secret of anything that looks like a key left out."""
    return _KEY_LIKE.sub(r"\1\2…", text)
