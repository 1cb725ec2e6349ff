import re
from collections.abc import Generator

import httpx
from pydantic import SecretStr


class BearerKey(httpx.Auth):
    """Sends an API key as a bearer token; the key stands in no URL and no repr."""

    def __init__(self, key: SecretStr) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the Authorization header."""
        request.headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        yield request


def is_sendable(key: SecretStr) -> bool:
    """Whether the key can stand in a header.

    The HTTP libraries quote a header that they refuse (a line break, a curly quote) in the text of
    their error, so such a key must not come near them.
    """
    return re.fullmatch(r"[\x21-\x7e]+", key.get_secret_value()) is not None
