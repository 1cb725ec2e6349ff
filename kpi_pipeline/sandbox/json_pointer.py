"""Changes at one place of a JSON document; the place is a JSON pointer (RFC 6901)."""

import copy
import re
from typing import Any

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


class NoSuchPlaceError(Exception):
    """The document has nothing at the pointer that could be changed so."""


def with_value(document: Any, pointer: str, value: object) -> Any:
    """The document with this value at the place; a new member of an object is added."""
    if not pointer:
        return value
    parent, last = _parent(document, pointer)
    if isinstance(parent, dict):
        parent[last] = value
    else:
        parent[_index(parent, last)] = value
    return document


def without(document: Any, pointer: str) -> Any:
    """The document without what is at the place."""
    parent, last = _parent(document, pointer)
    _child(parent, last)
    del parent[last if isinstance(parent, dict) else _index(parent, last)]
    return document


def with_twice(document: Any, pointer: str) -> Any:
    """The document with an array's element twice, one after the other."""
    parent, last = _parent(document, pointer)
    element = _child(parent, last)
    if not isinstance(parent, list):
        raise NoSuchPlaceError
    parent.insert(_index(parent, last), copy.deepcopy(element))
    return document


def _parent(document: Any, pointer: str) -> tuple[Any, str]:
    """What holds the place, and by which name it does."""
    *above, last = (part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
    for part in above:
        document = _child(document, part)
    if not isinstance(document, dict | list):
        raise NoSuchPlaceError
    return document, last


def _child(parent: Any, name: str) -> Any:
    if isinstance(parent, dict) and name in parent:
        return parent[name]
    if isinstance(parent, list):
        return parent[_index(parent, name)]
    raise NoSuchPlaceError


def _index(array: list[Any], name: str) -> int:
    if not _INDEX.fullmatch(name) or int(name) >= len(array):
        raise NoSuchPlaceError
    return int(name)
