"""The Email Bison instances, parsed from one setting: `NAME URL [MASTER_KEY], …`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

ENTRY_FORM = "NAME https://HOST MASTER_KEY"
NO_INSTANCE = f"No Email Bison is configured: set KPI_BISON_INSTANCES to `{ENTRY_FORM}`."
# As the vendor documents it: an integer, a pipe and about 48 alphanumerics.
API_KEY_FORM = "NUMBER|LETTERS-AND-DIGITS"

_WRITE_IT = "write it as https://HOST"
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class InstanceSetting:
    """One configured Email Bison server.

    `name` is what the column `instance` of the clients' CSV holds; `url` has scheme and host only.
    """

    name: str
    url: str
    master_key: SecretStr | None


def is_api_key(text: str) -> bool:
    """Whether `text` has the form of an Email Bison API key."""
    return re.fullmatch(r"[0-9]+\|[A-Za-z0-9]{20,}", text) is not None


def parse_instances(text: str) -> tuple[InstanceSetting, ...]:
    """The instances in a text of entries, separated by commas or line breaks.

    Raises:
        ValueError: naming every problem. An entry is called by its name or its position; no key
            and no address is shown, as both may hold a secret.
    """
    entries = [parts for entry in re.split(r"[,\r\n]", text) if (parts := entry.split())]
    problems: list[str] = []
    found: list[InstanceSetting] = []
    for position, parts in enumerate(entries, start=1):
        label = _label(parts, position)
        wrong = _problems(parts)
        problems += [f"{label}: {problem}" for problem in wrong]
        if not wrong:
            name, url, *api_key = parts
            master_key = SecretStr(api_key[0]) if api_key else None
            found.append(InstanceSetting(name, url.rstrip("/"), master_key))
    problems += _conflicts(found)
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(found)


def format_instances(instances: Iterable[InstanceSetting]) -> str:
    """The text that `parse_instances` reads, master keys included."""
    return ", ".join(
        " ".join([it.name, it.url, *([it.master_key.get_secret_value()] if it.master_key else [])])
        for it in instances
    )


def _label(parts: list[str], position: int) -> str:
    # A part of a key that was cut in two may look like a name: only before an address it is one.
    if len(parts) > 1 and "://" in parts[1] and _is_name(parts[0]):
        return parts[0]
    return f"entry {position}"


def _is_name(text: str) -> bool:
    return re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,30}", text) is not None


def _problems(parts: list[str]) -> list[str]:
    """The problems of one entry, regardless of the others."""
    if len(parts) < 2:
        return [f"it lacks a name or an address, write {ENTRY_FORM}"]
    if len(parts) > 3:
        return [f"it has {len(parts)} parts, write {ENTRY_FORM} and a comma before the next entry"]
    name, url, *api_key = parts
    if any("://" in part for part in (name, *api_key)):
        return [f"its parts are in another order, write {ENTRY_FORM}"]
    problems = []
    if not _is_name(name):
        problems.append(
            "its name is not valid, write 1 to 31 lower-case letters, digits, - and _, the first "
            "of them a letter or a digit"
        )
    if problem := url_problem(url):
        problems.append(problem)
    if api_key and not is_api_key(api_key[0]):
        problems.append(
            f"its master key is not of the form {API_KEY_FORM}, copy it again from Email Bison"
        )
    return problems


def url_problem(url: str) -> str | None:
    """What is wrong with the address of a server, as a clause without the address; or None."""
    parts = _split(url)
    host = parts.hostname or "" if parts else ""
    if parts is None or parts.scheme not in _DEFAULT_PORTS or not re.fullmatch(r"[\w.:-]+", host):
        return f"its address is not valid, {_WRITE_IT}"
    bare = f"{parts.scheme}://{parts.netloc}"
    if "@" in parts.netloc or url.rstrip("/").lower() != bare.lower():
        return f"its address holds more than scheme and host, {_WRITE_IT}"
    return None


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # Read for its check: urlsplit does not validate a port before.
    except ValueError:
        return None
    return parts


def _conflicts(instances: list[InstanceSetting]) -> list[str]:
    """The problems between entries that are valid on their own."""
    problems = []
    names: set[str] = set()
    servers: dict[tuple[str, str | None, int | None], str] = {}
    for it in instances:
        if it.name in names:
            problems.append(f"{it.name}: two entries have this name, give each its own")
            continue
        names.add(it.name)
        # One server under two names would have two locks on its one master key.
        first = servers.setdefault(_server(it.url), it.name)
        if first != it.name:
            problems.append(f"{it.name}: its address is that of {first}, name each server once")
    return problems


def _server(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme]
