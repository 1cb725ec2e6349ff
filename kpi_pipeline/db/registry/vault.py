"""API keys at rest: encrypted under secret keys that live outside the database."""

import hashlib
import os
import tempfile
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from pydantic import SecretStr

from kpi_pipeline.errors import KpiError


class Vault:
    """Encrypts API keys under the first of its secret keys, and decrypts them under any.

    `secret_keys` are Fernet keys, newest first, separated by commas. Those in the file
    `kept_in` are read again where a token needs a newer one: `kpi secret-key rotate` changes the
    file while other processes work.

    Raises:
        KpiError: if one is no Fernet key; the message shows none.
    """

    def __init__(self, secret_keys: SecretStr, kept_in: Path | None = None) -> None:
        self._kept_in = kept_in
        self._secret_keys = split_keys(secret_keys)
        self._fernets = self._opened(self._secret_keys)

    @property
    def has_old_keys(self) -> bool:
        """Whether there are secret keys beside the one that encrypts."""
        return len(self._fernets) > 1

    @property
    def fingerprints(self) -> list[str]:
        """What tells its secret keys apart, newest first; no secret key can be worked out of it."""
        return [fingerprint(it) for it in self._secret_keys]

    def fingerprint_for(self, token: bytes) -> str | None:
        """The fingerprint of the secret key that decrypts a stored token; None if none does."""
        for secret_key, fernet in zip(self._secret_keys, self._fernets, strict=True):
            try:
                fernet.decrypt(token)
            except InvalidToken:
                continue
            return fingerprint(secret_key)
        return None

    def encrypt(self, api_key: SecretStr) -> bytes:
        """The token to store."""
        self._read_again()
        return self._fernets[0].encrypt(api_key.get_secret_value().encode())

    def decrypt(self, token: bytes, workspace: str) -> SecretStr:
        """The API key behind a stored token.

        Raises:
            KpiError: naming the client, if the token was made with another secret key.
        """
        try:
            try:
                plain = MultiFernet(self._fernets).decrypt(token)
            except InvalidToken:
                self._read_again()
                plain = MultiFernet(self._fernets).decrypt(token)
        except InvalidToken:
            raise KpiError(
                f"The API key of {workspace} can't be decrypted: it was stored with another "
                "encryption key. Set KPI_SECRET_KEY (or the file secret.key of the state folder) "
                "to the one it was stored with, or import the client's API key again."
            ) from None
        return SecretStr(plain.decode())

    def is_current(self, token: bytes) -> bool:
        """Whether the token is encrypted under the first secret key."""
        try:
            self._fernets[0].decrypt(token)
        except InvalidToken:
            return False
        return True

    def _read_again(self) -> None:
        """Take over the secret keys of the file, and keep those that are known from before."""
        if self._kept_in is None or not self._kept_in.exists():
            return
        found = split_keys(SecretStr(self._kept_in.read_text()))
        keys = list(dict.fromkeys([*found, *self._secret_keys]))
        self._fernets = self._opened(keys)
        self._secret_keys = keys

    def _opened(self, secret_keys: list[str]) -> list[Fernet]:
        fernets = []
        for place, secret_key in enumerate(secret_keys, start=1):
            try:
                fernets.append(Fernet(secret_key))
            except ValueError:
                which = f"Key {place} of " if len(secret_keys) > 1 else ""
                remedy = (
                    "Make one with `kpi secret-key`, or leave the variable unset."
                    if self._kept_in is None
                    else "Restore the file from a backup; or delete it, and import all API keys "
                    "again."
                )
                raise KpiError(
                    f"{which}{self._kept_in or 'KPI_SECRET_KEY'} is no Fernet key: it must be 32 "
                    f"bytes in URL-safe base64 (44 characters). {remedy}"
                ) from None
        return fernets


def open_vault(secret_keys: SecretStr | None, state_dir: Path) -> Vault:
    """The vault of this installation; without configured secret keys one is generated and kept.

    The generated one is in `secret.key` of the state folder, readable by its owner alone.
    """
    if secret_keys is not None:
        return Vault(secret_keys)
    path = key_file(state_dir)
    return Vault(kept_keys(path), kept_in=path)


def existing_vault(secret_keys: SecretStr | None, state_dir: Path) -> Vault | None:
    """As `open_vault`, but None where it would generate a secret key."""
    if secret_keys is None and not key_file(state_dir).exists():
        return None
    return open_vault(secret_keys, state_dir)


def fingerprint(secret_key: str) -> str:
    """What tells a secret key from others, in 12 characters."""
    return hashlib.sha256(secret_key.encode()).hexdigest()[:12]


def new_secret_key() -> str:
    """A new secret key, fit for KPI_SECRET_KEY."""
    return Fernet.generate_key().decode()


def split_keys(secret_keys: SecretStr) -> list[str]:
    """The secret keys in a text of them, newest first. They are separated by commas."""
    return [it.strip() for it in secret_keys.get_secret_value().split(",")]


def key_file(state_dir: Path) -> Path:
    """Where the generated secret key of a state folder is kept."""
    return state_dir / "secret.key"


def replace_kept_keys(path: Path, secret_keys: list[str]) -> None:
    """Replace the contents of a key file. After a crash it holds the old ones or the new ones.

    Raises:
        KpiError: if the file can't be written; then it is as it was.
    """
    try:
        draft = _draft(path, ",".join(secret_keys))
        try:
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise KpiError(
            f"{path} can't be replaced: {error.strerror}. Every API key is still readable. Check "
            "the folder, and run it again."
        ) from None


def kept_keys(path: Path) -> SecretStr:
    """The secret keys in a file, readable by its owner alone; a new one if there is no file."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Written whole under a name of its own and then linked into place: of two processes that start
    # together one wins, and neither ever reads half a key.
    if not path.exists():
        draft = _draft(path, new_secret_key())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return SecretStr(path.read_text())


def _draft(path: Path, text: str) -> Path:
    """A file beside `path` that holds the text, on disk, and readable by its owner alone."""
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return Path(name)
