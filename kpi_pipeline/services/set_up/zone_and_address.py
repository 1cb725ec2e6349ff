"""Tests the answers about the time zone and the public address of the gateway."""

import difflib
import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import httpx

from kpi_pipeline.domain.formatting import as_sentence
from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import url_problem
from kpi_pipeline.settings import zone_names
from kpi_pipeline.settings.webhooks import WEBHOOK_PATH, secret_setting

_SECONDS = 10.0


def known_zone(text: str) -> ZoneInfo:
    """The time zone of that name.

    Raises:
        KpiError: if there is none, with the names that are most like it.
    """
    names = {it.casefold(): it for it in zone_names()}
    wanted = text.strip().casefold().replace(" ", "_")
    if wanted in names:
        return ZoneInfo(names[wanted])
    # A city alone is a part of the name that people know.
    like = [name for name in names if name.rpartition("/")[2] == wanted]
    like += difflib.get_close_matches(wanted, names, n=3)
    nearest = " or ".join(names[it] for it in dict.fromkeys(like[:3]))
    hint = f"Did you mean {nearest}?" if nearest else "Write one such as America/Chicago."
    raise KpiError(f"{text!r} is no time zone. {hint}")


@dataclass(frozen=True)
class PublicAddress:
    """An address of the right form, and what was found there, as sentences.

    `answers`: a gateway answers at it. Before `kpi up` none does.
    """

    url: str
    answers: bool
    found: str
    warnings: tuple[str, ...]


def inspect_public_address(
    text: str, *, transport: httpx.BaseTransport | None = None
) -> PublicAddress:
    """The address at which Email Bison shall reach the gateway, and what answers there now.

    Raises:
        KpiError: if it is not of the form https://HOST.
    """
    url = text.strip().rstrip("/")
    if problem := url_problem(url):
        raise KpiError(as_sentence(problem))
    parts = urlsplit(url)
    warnings = []
    if is_private(parts.hostname or ""):
        warnings.append(
            f"{parts.hostname} is an address of this machine or of a private network: Email Bison "
            "reaches it only if it runs there, too."
        )
    elif parts.scheme != "https":
        warnings.append(
            f"{url} has no TLS: people's data and the secret of the webhooks are sent to it as "
            "plain text. Put a proxy with TLS in front of the gateway, and write https://."
        )
    answers, found = _found_at(url, transport)
    return PublicAddress(url, answers, found, tuple(warnings))


def is_private(host: str) -> bool:
    """Whether only this machine, or its own network, reaches the host."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost" or "." not in host


def new_webhook_secrets(instances: Iterable[str]) -> dict[str, str]:
    """A new secret for the webhooks of each of these instances, by its variable."""
    return {secret_setting(name): secrets.token_urlsafe(32) for name in instances}


def _found_at(url: str, transport: httpx.BaseTransport | None) -> tuple[bool, str]:
    later = "Once `kpi up` and the proxy in front of it run, `kpi webhooks test` tries it."
    try:
        # The last part is no secret: a gateway answers 405 to any GET below this path.
        with httpx.Client(timeout=_SECONDS, transport=transport) as http:
            status = http.get(f"{url}{WEBHOOK_PATH}/probe").status_code
    except httpx.TransportError as error:
        return False, f"Nothing answers there yet ({type(error).__name__}). {later}"
    if status == httpx.codes.METHOD_NOT_ALLOWED:
        return True, "A gateway answers there."
    if 300 <= status < 400:
        return False, (
            f"What answers there redirects ({status}), which webhooks do not follow: give the "
            "address that it redirects to."
        )
    return False, f"What answers there is not the gateway yet (status {status}). {later}"
