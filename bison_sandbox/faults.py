"""Faults: what can go wrong with a call, and which calls a fault applies to."""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from bison_sandbox.requests import VERBATIM, InvalidError, invalid_fields

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


class NoSuchPlaceError(Exception):
    """The document has no such place, or one that can't be changed in that way."""


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
    """The object or array that holds the place, and the place's name in it."""
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


Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]

_POINTER = re.compile(r"(/([^~/]|~0|~1)*)*")
_HEADER_TEXT = re.compile(r"[\x20-\x7e]+")


class Fault(BaseModel):
    """Something that goes wrong with certain calls; the kinds are below.

    It applies to calls that match all selectors: `path` is a part of the path, `workspace_id` the
    workspace that the call acts in (for a switch or a new key: the one it names), `key` the sort of
    API key. `after` matching calls pass first, then it applies to `times` of them, or to all if
    that is None.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    kind: ClassVar[str]

    path: str = ""
    method: Annotated[str, AfterValidator(str.upper)] | None = None
    workspace_id: int | None = None
    key: Literal["workspace", "master"] | None = None
    after: Annotated[int, Field(ge=0)] = 0
    times: Annotated[int, Field(ge=1)] | None = None

    def as_json(self) -> dict[str, object]:
        """Its kind and the given options."""
        return {"kind": self.kind, **self.model_dump(exclude_unset=True)}


class Status(Fault):
    """An answer with that status, in the vendor's words or as a proxy's page.

    `retry_after` is in seconds or a text such as an HTTP date; False is no such header, and None is
    what the variant says.
    """

    kind = "status"
    status: Annotated[int, Field(ge=200, le=599)]
    message: str | None = None
    html: bool = False
    retry_after: int | str | Literal[False] | None = None

    @field_validator("retry_after", mode="before")
    @classmethod
    def _is_retry_after(cls, value: object) -> object:
        text = isinstance(value, str) and _HEADER_TEXT.fullmatch(value)
        if not (text or value is None or value is False or type(value) is int):
            raise PydanticCustomError(
                VERBATIM,
                "The retry_after field must be an integer of seconds, a line of text, or false.",
            )
        return value

    @model_validator(mode="after")
    def _is_for_429(self) -> "Status":
        if self.retry_after is not None and self.status != 429:
            raise InvalidError({"retry_after": ["The retry_after field is for status 429 only."]})
        return self


class SuccessFalse(Fault):
    """HTTP 200 that carries a failure."""

    kind = "success_false"
    value: Literal[False, "false"] = False
    message: str = "Something went wrong. Please try again."


class Empty(Fault):
    """HTTP 200 without a body."""

    kind = "empty"


class Html(Fault):
    """HTTP 200 with an HTML page."""

    kind = "html"


class Cut(Fault):
    """The first half of the real answer, with a Content-Length that fits it."""

    kind = "cut"


class Slow(Fault):
    """The real answer, so many seconds late."""

    kind = "slow"
    seconds: Seconds


class Stall(Fault):
    """Half of the real answer, then silence for so many seconds, then the end of the connection."""

    kind = "stall"
    seconds: Seconds = 3600.0


class Reset(Fault):
    """Half of the real answer, then the end of the connection."""

    kind = "reset"


class Edit(Fault):
    """The real answer with one place changed: a new `value`, or the place removed or repeated."""

    kind = "edit"
    pointer: str
    value: Any = None
    remove: bool = False
    repeat: bool = False

    @field_validator("pointer")
    @classmethod
    def _is_pointer(cls, pointer: str) -> str:
        if not _POINTER.fullmatch(pointer):
            raise PydanticCustomError(
                VERBATIM, "The pointer field must be a JSON pointer such as /data/0/name."
            )
        return pointer

    @model_validator(mode="after")
    def _is_one_change(self) -> "Edit":
        if ("value" in self.model_fields_set) + self.remove + self.repeat != 1:
            sentence = "The value field is required, or else one of remove and repeat as true."
            raise InvalidError({"value": [sentence]})
        if not self.pointer and "value" not in self.model_fields_set:
            sentence = "The pointer field must name a place inside the answer."
            raise InvalidError({"pointer": [sentence]})
        return self


class MoveUser(Fault):
    """The user switches to workspace `to` in the vendor's own pages, before or after the answer."""

    kind = "move_user"
    to: int
    when: Literal["before", "after"] = "before"


KINDS: Mapping[str, type[Fault]] = {
    kind.kind: kind
    for kind in (Status, SuccessFalse, Empty, Html, Cut, Slow, Stall, Reset, Edit, MoveUser)
}


def fault_from(values: Mapping[str, object]) -> Fault:
    """A fault from its `kind` and options. Raises InvalidError, which names the field."""
    options = dict(values)
    kind = KINDS.get(str(options.pop("kind", "")))
    if kind is None:
        sentence = f"The selected kind is invalid. Allowed are {', '.join(KINDS)}."
        raise InvalidError({"kind": [sentence]})
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        raise invalid_fields(error, kind.model_fields) from error


@dataclass
class ActiveFault:
    """A fault in force, with the numbers of calls that passed and that it struck."""

    id: int
    fault: Fault
    passed: int = 0
    struck: int = 0


class Faults:
    """The faults in force, in order of creation; the first one that matches a call strikes it.

    A call that one fault strikes does not count for the later ones.
    """

    def __init__(self) -> None:
        self._last_id = 0
        self._all: dict[int, ActiveFault] = {}

    def add(self, fault: Fault) -> ActiveFault:
        """Put a fault in force; ids are never reused."""
        self._last_id += 1
        active = ActiveFault(self._last_id, fault)
        self._all[active.id] = active
        return active

    def all(self) -> list[ActiveFault]:
        """All faults, including those that have struck `times` calls."""
        return list(self._all.values())

    def remove(self, fault_id: int) -> bool:
        """Remove one; return whether it existed."""
        return self._all.pop(fault_id, None) is not None

    def clear(self) -> None:
        """Remove all."""
        self._all.clear()

    def strike(
        self, method: str, path: str, workspace_id: int | None, *, master: bool
    ) -> ActiveFault | None:
        """The fault that strikes this call, which counts for it; None if no fault does."""
        for active in self._all.values():
            fault = active.fault
            fits = (
                fault.path in path
                and fault.method in (None, method)
                and fault.workspace_id in (None, workspace_id)
                and fault.key in (None, "master" if master else "workspace")
            )
            if not fits or active.struck == fault.times:
                continue
            if active.passed < fault.after:
                active.passed += 1
                continue
            active.struck += 1
            return active
        return None
