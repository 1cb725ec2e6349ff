"""What can go wrong with a call, kind by kind, and which calls it is to strike."""

import re
from collections.abc import Mapping
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

from kpi_pipeline.sandbox.errors import InvalidError
from kpi_pipeline.sandbox.wrong_values import VERBATIM, refused

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]

_POINTER = re.compile(r"(/([^~/]|~0|~1)*)*")
_HEADER_TEXT = re.compile(r"[\x20-\x7e]+")


class Fault(BaseModel):
    """Something that goes wrong with certain calls; a kind each below.

    It strikes the calls that all of its selectors fit: `path` is a part of the path, `workspace_id`
    the workspace that a call would be answered for (for a switch or a new key: the one it names),
    `key` the sort of key it came with. It lets `after` such calls pass first and strikes `times` of
    them, for ever where that is None.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    kind: ClassVar[str]

    path: str = ""
    method: Annotated[str, AfterValidator(str.upper)] | None = None
    workspace_id: int | None = None
    key: Literal["workspace", "master"] | None = None
    after: Annotated[int, Field(ge=0)] = 0
    times: Annotated[int, Field(ge=1)] | None = None

    def told(self) -> dict[str, object]:
        """Its kind, and the options that were given."""
        return {"kind": self.kind, **self.model_dump(exclude_unset=True)}


class Status(Fault):
    """An answer with that status, in the vendor's words or as a proxy's page.

    `retry_after` is seconds or a text such as an HTTP date, False for no such header, and None for
    what the manner says.
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
    """HTTP 200 with a page in place of an answer."""

    kind = "html"


class Cut(Fault):
    """The first half of the real answer, as if that were all of it."""

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
    """A fault from its `kind` and its options. Raises InvalidError, which names the field."""
    options = dict(values)
    kind = KINDS.get(str(options.pop("kind", "")))
    if kind is None:
        sentence = f"The selected kind is invalid. Allowed are {', '.join(KINDS)}."
        raise InvalidError({"kind": [sentence]})
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        raise refused(error, kind.model_fields) from error
