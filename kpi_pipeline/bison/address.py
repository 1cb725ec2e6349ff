"""Whether Email Bison's API answers at an address, found out without an API key."""

from urllib.parse import urlsplit

import httpx

from kpi_pipeline.bison.answers import loads
from kpi_pipeline.bison.errors import excerpt, without_secrets
from kpi_pipeline.bison.master_key import WHO_AM_I
from kpi_pipeline.retry import is_transient_status

_SECONDS = 10.0


def address_problem(url: str, *, transport: httpx.BaseTransport | None = None) -> str | None:
    """Why calls to the instance at `url` would fail, as sentences with a remedy; None if not.

    One call without an API key is made: Email Bison answers that it needs one.
    """
    try:
        with httpx.Client(timeout=_SECONDS, follow_redirects=False, transport=transport) as http:
            answer = http.get(f"{url}{WHO_AM_I.path}", headers={"Accept": "application/json"})
    except httpx.TransportError as error:
        seen = excerpt(without_secrets(f"{type(error).__name__} {error}".strip()))
        return f"{url} gives no answer: {seen}. Check the address, and that Email Bison is up."
    status = answer.status_code
    if status in (401, 403) and isinstance(loads(answer.content), dict):
        return None
    if answer.is_redirect:
        return f"{url} redirects to {_server(answer)}. Give the address that it redirects to."
    if is_transient_status(status):
        return f"{url} answers {status}. Try again when Email Bison is up."
    return (
        f"{url} answers {status}, but not as Email Bison's API does. Give the address of Email "
        "Bison itself, as in the address bar of its own pages."
    )


def _server(answer: httpx.Response) -> str:
    """Scheme and host of a redirect: its path may hold a secret."""
    parts = urlsplit(str(answer.url.join(answer.headers["Location"])))
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"
