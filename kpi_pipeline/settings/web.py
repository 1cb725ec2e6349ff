"""Values of the pages' settings: addresses, names, proxies, headers and passwords."""

import ipaddress
import re
from urllib.parse import urlsplit

# Each stands for every address of the machine, and answers at loopback, too.
_REACHED_AT = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound here
# Browsers, or programs of any visitor, set these themselves; or they name no user.
_OTHER_HEADERS = {
    *("authorization", "cookie", "host", "origin", "referer", "user-agent", "forwarded"),
    *("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"),
}
_SHORTEST_PASSWORD = 12
_LONGEST_PASSWORD = 200


def reached_at(address: str) -> str:
    """The host of a URL at which this machine reaches a server that listens on `address`."""
    address = _REACHED_AT.get(address, address)
    return f"[{address}]" if ":" in address else address


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches a server that listens on `address`."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def checked_password(password: str) -> str:
    """The password.

    Raises:
        ValueError: if it is too short, or no form would send it as it is.
    """
    printable = password.isprintable() and password.strip() == password
    if not printable or not _SHORTEST_PASSWORD <= len(password) <= _LONGEST_PASSWORD:
        raise ValueError(
            f"it must have {_SHORTEST_PASSWORD} to {_LONGEST_PASSWORD} printable characters, and "
            "no blank at either end"
        )
    return password


def parse_names(text: str) -> tuple[str, ...]:
    """Host names, separated by commas or blanks, in lower case and without ports.

    Raises:
        ValueError: if an entry is something else.
    """
    names = tuple(it.lower() for it in re.split(r"[\s,]+", text) if it)
    for name in names:
        if name in _REACHED_AT:
            raise ValueError(f"{name} is no name; KPI_WEB_ADDRESS is the address to listen on")
        if not re.fullmatch(r"[a-z0-9_.-]+|\[[0-9a-f:.]+\]", name):
            raise ValueError(f"{name!r} is not a host name; write one such as kpi.agency.example")
    return names


def parse_proxies(text: str) -> tuple[str, ...]:
    """Addresses and networks, separated by commas or blanks.

    Raises:
        ValueError: if an entry is neither.
    """
    proxies = tuple(it for it in re.split(r"[\s,]+", text) if it)
    for proxy in proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError:
            raise ValueError(
                f"{proxy!r} is not an address; write one such as 10.0.0.7 or 10.0.0.0/24"
            ) from None
    return proxies


def checked_prefix(path: str) -> str:
    """The path, which begins with a slash and ends without one; empty for a lone slash.

    Raises:
        ValueError: if it is not of that form.
    """
    path = path.strip().rstrip("/")
    if path and not re.fullmatch(r"(/[A-Za-z0-9_-]+)+", path):
        raise ValueError(f"{path!r} is not a path; write one such as /dagster")
    return path


def checked_header(name: str) -> str:
    """The name of a header that only a proxy sets, in lower case.

    Raises:
        ValueError: if it is no name, or that of a header with another meaning.
    """
    name = name.strip().lower()
    if not re.fullmatch(r"[a-z0-9-]+", name) or name in _OTHER_HEADERS:
        raise ValueError(f"{name!r} is not such a header; write one such as X-Forwarded-User")
    return name


def host_of(url: str | None) -> tuple[str, ...]:
    """The host name of a URL, if there is one."""
    host = urlsplit(url or "").hostname
    return () if host is None else (f"[{host}]" if ":" in host else host,)
