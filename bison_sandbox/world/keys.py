"""API keys, and the agency's one user, in whose current workspace the master key acts."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from string import ascii_letters, digits


class AgencyUser:
    """The one user of the instance; its master key acts in the user's current workspace.

    A switch may take some seconds to act. A newer switch cancels older ones that would act later
    than it. `clock` counts seconds.
    """

    def __init__(self, workspace_id: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.id = 1
        self.name = "Avery Quill"
        self.email = "avery@agency.example"
        self._workspace_id = workspace_id
        self._clock = clock
        self._coming: list[tuple[float, int]] = []

    @property
    def current_workspace_id(self) -> int:
        """The workspace that the master key acts in now."""
        now = self._clock()
        while self._coming and self._coming[0][0] <= now:
            self._workspace_id = self._coming.pop(0)[1]
        return self._workspace_id

    def switch(self, workspace_id: int, seconds: float = 0.0) -> None:
        """Move to another workspace, after so many seconds."""
        due = self._clock() + seconds
        self._coming = [each for each in self._coming if each[0] < due]
        self._coming.append((due, workspace_id))

    def leave(self, workspace_id: int, instead: int) -> None:
        """Leave a deleted workspace, and cancel switches to it."""
        self._coming = [each for each in self._coming if each[1] != workspace_id]
        if self.current_workspace_id == workspace_id:
            self._workspace_id = instead


_ALPHABET = digits + ascii_letters
_SECRET_LENGTH = 48


@dataclass
class Key:
    """An API key; `workspace_id` None is a master key.

    `token` is what a caller sends, `ID|SECRET`; no repr shows it.
    """

    id: int
    workspace_id: int | None
    name: str
    created_at: datetime
    token: str = field(repr=False)
    revoked: bool = False

    @property
    def token_hash(self) -> str:
        """Hash of the secret, as the vendor stores it."""
        return sha256(self.token.partition("|")[2].encode()).hexdigest()


class KeyRing:
    """Every API key ever issued. Secrets are derived from the seed, so the code contains none."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._keys: list[Key] = []
        self._by_token: dict[str, Key] = {}

    def issue(self, workspace_id: int | None, name: str, created_at: datetime) -> Key:
        """Issue a new API key; it works at once."""
        key_id = len(self._keys) + 1
        token = f"{key_id}|{_secret(self._seed, key_id)}"
        key = Key(key_id, workspace_id, name, created_at, token)
        self._keys.append(key)
        self._by_token[token] = key
        return key

    def find(self, token: str) -> Key | None:
        """The API key of a token, unless it is unknown or revoked."""
        key = self._by_token.get(token)
        return None if key is None or key.revoked else key

    def webhook_secret(self, workspace_id: int) -> str:
        """The secret that the user's answer shows of a workspace."""
        return _secret(self._seed, f"webhooks {workspace_id}")

    def set_revoked(self, workspace_id: int, revoked: bool) -> int:
        """Revoke or restore all API keys of a workspace; return how many it has."""
        keys = [key for key in self._keys if key.workspace_id == workspace_id]
        for key in keys:
            key.revoked = revoked
        return len(keys)


def _secret(seed: int, key_id: int | str) -> str:
    """Alphanumerics from a hash; bytes that would make some of them likelier are skipped."""
    fair = 256 - 256 % len(_ALPHABET)
    secret = ""
    block = 0
    while len(secret) < _SECRET_LENGTH:
        digest = sha256(f"{seed} key {key_id} {block}".encode()).digest()
        secret += "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest if byte < fair)
        block += 1
    return secret[:_SECRET_LENGTH]
