"""Passwords of users, stored as argon2id hashes, and the tokens of sessions and programs.

A token is random, so its plain SHA-256 tells nothing about it; a password is not, and takes a slow
hash with a salt.
"""

import base64
import hashlib
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

API_TOKEN_PREFIX = "kpi_"  # noqa: S105 - what each begins with
COMMAND_TOKEN_PREFIX = "kpi-command_"  # noqa: S105

_hasher = PasswordHasher()


def hash_password(password: str) -> str:
    """The hash to store. It takes about 64 MiB of memory while it is computed."""
    return _hasher.hash(password)


def verify_password(password: str, stored: str | None) -> bool:
    """Whether this is the password of a stored hash.

    Without one, as for an unknown user, the same work is done: the time does not tell who exists.
    """
    try:
        _hasher.verify(_hash_of_nobody() if stored is None else stored, password)
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None


def is_outdated(stored: str) -> bool:
    """Whether a hash was made with other parameters than those of today."""
    return _hasher.check_needs_rehash(stored)


def new_session_token() -> str:
    """A token for the cookie of a session."""
    return secrets.token_urlsafe(32)


def new_api_token() -> str:
    """A token for a program; its beginning makes it easy to find where it should not be."""
    return API_TOKEN_PREFIX + secrets.token_urlsafe(32)


def new_command_token() -> str:
    """A token for the session of a command of ours, sent in a header as there is no browser."""
    return COMMAND_TOKEN_PREFIX + secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _hash_of_nobody() -> str:
    """A hash with the parameters of today, of no password."""
    it = _hasher
    salt, digest = (
        base64.b64encode(secrets.token_bytes(length)).decode().rstrip("=")
        for length in (it.salt_len, it.hash_len)
    )
    cost = f"m={it.memory_cost},t={it.time_cost},p={it.parallelism}"
    return f"$argon2id$v=19${cost}${salt}${digest}"
