"""Sessions of people who logged in: a token in a cookie, which only this installation can make."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from pydantic import SecretStr

from kpi_pipeline.db.registry.vault import kept_keys


class Sessions:
    """Makes and reads the tokens of sessions, which last so many seconds.

    Their key is made of a file of the state folder and of all passwords, so a changed password
    ends every session. Pages that share both share the sessions, too.
    """

    def __init__(self, state_dir: Path, passwords: Sequence[SecretStr], seconds: int) -> None:
        self._seconds = seconds
        secret = kept_keys(state_dir / "web.key").get_secret_value().encode()
        text = json.dumps([it.get_secret_value() for it in passwords]).encode()
        self._fernet = Fernet(base64.urlsafe_b64encode(hmac.digest(secret, text, "sha256")))
        # Two installations on one host have cookies of their own, as cookies know no ports.
        self.cookie = f"kpi_session_{hashlib.sha256(secret).hexdigest()[:8]}"
        self._ended: dict[bytes, float] = {}

    def begin(self, role: str) -> str:
        """A token for a person of this role."""
        return self._fernet.encrypt(role.encode()).decode()

    def role(self, token: str) -> str | None:
        """The role of a token; None if it is not one of ours, too old, or its session has ended."""
        try:
            role = self._fernet.decrypt(token, ttl=self._seconds).decode()
        except (InvalidToken, UnicodeError):
            return None
        return None if _digest(token) in self._ended else role

    def end(self, token: str) -> None:
        """Have this process no longer accept the token."""
        if self.role(token) is not None:
            now = time.time()
            self._ended = {it: until for it, until in self._ended.items() if until > now}
            self._ended[_digest(token)] = now + self._seconds


def _digest(token: str) -> bytes:
    # Of its meaning: base64 spells one value in several ways.
    return hashlib.sha256(base64.urlsafe_b64decode(token)).digest()
