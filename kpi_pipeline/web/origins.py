"""From where a browser may use a page: the page's own names, and the page itself.

A browser sends requests to 127.0.0.1 for any web page that asks it to. Two rules stop that. The
Host must be a name of ours: a foreign name that was made to resolve to our address (DNS rebinding)
is rejected. And the browser must say, in Origin and Sec-Fetch-Site, that our page asks. Programs
that send neither header pass, as no web page can have a browser leave them out of a POST.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
# These stand for every address of the machine; no browser asks for them.
_WILDCARDS = {"0.0.0.0", "::"}  # noqa: S104 - not bound here
_DEFAULT_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_OWN = {"same-origin", "none"}


@dataclass(frozen=True)
class Rejection:
    """Why a request is not answered: an HTTP status, and a sentence for the person who asked."""

    status: int
    sentence: str


def allowed_names(further: Iterable[str], bound: str) -> frozenset[str]:
    """The names of a page: those of loopback, the address that it listens on, and `further`."""
    address = () if bound in _WILDCARDS else (f"[{bound}]" if ":" in bound else bound,)
    return frozenset(it.lower() for it in (*_LOOPBACK_NAMES, *address, *further))


def rejected_host(headers: Headers, names: frozenset[str]) -> Rejection | None:
    """Why the Host of a request is not one of ours, if so; ports do not matter.

    A proxy may send the name that the browser used in X-Forwarded-Host: then both must be ours, as
    a script of a rebound name can set that header.
    """
    hosts = headers.getlist("host")
    asked = [*hosts, *_forwarded(headers)]
    if len(hosts) == 1 and all(_name(it) in names for it in asked):
        return None
    foreign = [it for it in asked if _name(it) not in names] or ["(none, or several)"]
    return Rejection(
        421,
        f"This page does not answer to the host {foreign[0][:100]!r}. If it is a name of this "
        "installation, add it to KPI_WEB_HOSTS and restart `kpi up`.",
    )


def rejected_origin(scheme: str, method: str, headers: Headers) -> Rejection | None:
    """Why another web page asked for this, if so. `scheme` is that of the request as far as known.

    Links from anywhere lead to the page: a browser that goes to an address (GET) may come from
    another one. Everything else must come from the page itself.
    """
    site = headers.get("sec-fetch-site")
    if site is not None and site not in _OWN and not _follows_a_link(method, headers):
        return _foreign(f"another web page ({site})")
    origins = headers.getlist("origin")
    hosts = [*_forwarded(headers), headers.get("host", "")]
    if not origins or (len(origins) == 1 and _matches(origins[0], hosts, scheme)):
        return None
    return _foreign(
        f"{', '.join(origins)[:100]!r}, and this page is {hosts[0][:100]!r}. Behind a proxy, both "
        "must agree: it has to pass on the Host, with its port, and X-Forwarded-Proto"
    )


def _foreign(source: str) -> Rejection:
    return Rejection(403, f"Only this page itself may ask for this. The request is from {source}.")


def _follows_a_link(method: str, headers: Headers) -> bool:
    return (
        method in ("GET", "HEAD")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _forwarded(headers: Headers) -> Sequence[str]:
    """The names of X-Forwarded-Host; each of several proxies may have added one."""
    return [
        name.strip() for value in headers.getlist("x-forwarded-host") for name in value.split(",")
    ]


def _matches(origin: str, hosts: Sequence[str], scheme: str) -> bool:
    """Whether an Origin is one of the hosts. An unknown scheme counts as either."""
    try:
        parts = urlsplit(origin)
        asked = (parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme])
        own = [_split(host, parts.scheme) for host in hosts]
    except (ValueError, KeyError):
        return False
    # A proxy that does not say so may have taken off TLS: plain HTTP proves nothing.
    return asked in own and not (scheme in ("https", "wss") and parts.scheme != "https")


def _split(host: str, scheme: str) -> tuple[str | None, int]:
    parts = urlsplit(f"//{host}")
    return parts.hostname, parts.port or _DEFAULT_PORTS[scheme]


def _name(host: str) -> str:
    """The name of a Host, in lower case and without its port; an address of IPv6 in brackets."""
    name, bracket, port = host.lower().rpartition("]")
    if bracket:
        return name + bracket if not port or port[1:].isdecimal() else host
    name, colon, port = host.lower().rpartition(":")
    return (name if port.isdecimal() or not port else host) if colon else host.lower()
