"""API keys at rest: encrypted, with a key that lives outside the database."""

import os
import tempfile
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from pydantic import SecretStr

from kpi_pipeline.errors import KpiError


class Vault:
    """Encrypts and decrypts API keys (Fernet)."""

    def __init__(self, secret_key: SecretStr, kept_in: Path | None = None) -> None:
        try:
            self._fernet = Fernet(secret_key.get_secret_value())
        except ValueError:
            remedy = (
                "Make one with `kpi secret-key`, or leave the variable unset."
                if kept_in is None
                else "Restore the file from a backup; or delete it, and import all API keys again."
            )
            raise KpiError(
                f"{kept_in or 'KPI_SECRET_KEY'} is no Fernet key: it must be 32 bytes in URL-safe "
                f"base64 (44 characters). {remedy}"
            ) from None

    def encrypt(self, api_key: SecretStr) -> bytes:
        """The token to store."""
        return self._fernet.encrypt(api_key.get_secret_value().encode())

    def decrypt(self, token: bytes, workspace: str) -> SecretStr:
        """The API key behind a stored token.

        Raises:
            KpiError: naming the client, if the token was made with another encryption key.
        """
        try:
            return SecretStr(self._fernet.decrypt(token).decode())
        except InvalidToken:
            raise KpiError(
                f"The API key of {workspace} can't be decrypted: it was stored with another "
                "encryption key. Set KPI_SECRET_KEY (or the file secret.key of the state folder) "
                "to the one it was stored with, or import the client's API key again."
            ) from None


def open_vault(secret_key: SecretStr | None, state_dir: Path) -> Vault:
    """The vault of this app; without a configured key one is generated and kept.

    The generated key stands in `secret.key` of the state folder, readable by its owner alone.
    """
    if secret_key is not None:
        return Vault(secret_key)
    path = state_dir / "secret.key"
    return Vault(_kept_key(path), kept_in=path)


def new_secret_key() -> str:
    """A fresh encryption key, fit for KPI_SECRET_KEY."""
    return Fernet.generate_key().decode()


def _kept_key(path: Path) -> SecretStr:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written whole under a name of its own and then linked into place: of two processes that start
    # together one wins, and no one ever reads half a key.
    if not path.exists():
        # Readable by its owner alone, as mkstemp makes it.
        descriptor, draft = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(new_secret_key())
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            Path(draft).unlink()
    return SecretStr(path.read_text().strip())
