"""Models of Email Bison's answers. An answer is validated as a whole before a number of it counts.

The shapes are those of the vendor's document. Integers may come as integers or as numeric strings:
the document shows strings, instances were seen to send integers.
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from kpi_pipeline.bison.errors import excerpt, without_secrets
from kpi_pipeline.bison.model import PeriodStats

# An object that is keyed by ids would have as many "fields" as there are ids.
_MOST_IN_ONE_ANSWER = 20

_reported: ContextVar[set[str] | None] = ContextVar("reported", default=None)


@contextmanager
def collecting_unknown_fields() -> Iterator[set[str]]:
    """Collect the unknown fields that are reported within the block."""
    fields: set[str] = set()
    token = _reported.set(fields)
    try:
        yield fields
    finally:
        _reported.reset(token)


def report_unknown_fields(fields: Iterable[str]) -> None:
    """Report unknown fields, each by its path in the answer, such as `data[].mood`."""
    if (reported := _reported.get()) is None:
        return
    for field in fields:
        if len(reported) == _MOST_IN_ONE_ANSWER:
            return
        reported.add(excerpt(field))


_PROBLEMS_SHOWN = 3

# The limits of our columns of counts and of ids: integer and bigint.
LARGEST_COUNT = 2**31 - 1
_LARGEST_ID = 2**63 - 1


class AnswerError(ValueError):
    """An answer that can't be believed; its text continues "the call …"."""


class ReportedFailureError(AnswerError):
    """An answer that reports a failure in spite of its HTTP status; `message` is its reason."""

    def __init__(self, message: str) -> None:
        super().__init__(f"answered with a failure: {message or 'it gives no reason'}")
        self.message = message


def load(content: bytes) -> object:
    """The JSON of a successful answer.

    Raises:
        AnswerError: if it is empty or no JSON.
        ReportedFailureError: if it reports a failure in spite of its HTTP status.
    """
    if not content.strip():
        raise AnswerError("answered with an empty body")
    body = loads(content)
    if body is None:
        raise AnswerError("answered with something other than JSON")
    # Observed live: HTTP 200 with {"data": {"success": false}}, the false also as a string.
    for part in (body, body.get("data") if isinstance(body, dict) else None):
        if isinstance(part, dict) and str(part.get("success")).strip().lower() == "false":
            raise ReportedFailureError(message_of(body))
    return body


def loads(content: bytes) -> Any:
    """Parse JSON as Email Bison writes it; None if it is no JSON.

    Text fields can hold raw control characters (observed live), which strict parsers reject.
    """
    try:
        return json.loads(content, strict=False, object_pairs_hook=_fields)
    except (ValueError, RecursionError):
        return None


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Python would keep the last of two fields of one name; nothing says which of them is true.
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("an object has a field twice")
    return fields


def message_of(body: object) -> str:
    """The message of an error body, followed by its errors by field, as 422 has them.

    Only texts are taken, and without the secrets that they may quote.
    """
    parts = []
    for part in (body, body.get("data") if isinstance(body, dict) else None):
        if not isinstance(part, dict):
            continue
        if isinstance(message := part.get("message"), str):
            parts.append(message)
        if isinstance(errors := part.get("errors"), dict):
            parts += [f"{field}: {text}" for field in errors for text in _texts(errors[field])]
    return without_secrets("; ".join(parts))


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]


def _whole(value: object, most: int, name: str) -> int:
    """A number from 0 to `most`, an integer or digits; anything else is a ValueError."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
        return value
    raise ValueError(f"it is no {name}")


Count = Annotated[int, BeforeValidator(partial(_whole, most=LARGEST_COUNT, name="count"))]
Id = Annotated[int, BeforeValidator(partial(_whole, most=_LARGEST_ID, name="id"))]
Answer = TypeVar("Answer", bound="WireAnswer")


class WireAnswer(BaseModel):
    """Base of all response models: declared fields are parsed, `documented` ones ignored, others
    reported.

    Of a field that is not declared only the name is kept: its value may be a secret, as that of
    `webhooks_secret_key` is.
    """

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    documented: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _only_names_of_others(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        declared = {field.alias or name for name, field in cls.model_fields.items()}
        return {name: value if name in declared else None for name, value in body.items()}

    def unknown(self, path: str = "") -> Iterator[str]:
        """The paths of the undocumented fields, at any depth."""
        for name in self.model_extra or ():
            if name not in self.documented:
                yield f"{path}{name}"
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, WireAnswer):
                yield from value.unknown(f"{path}{name}.")
            elif isinstance(value, list):
                for item in value:
                    if isinstance(item, WireAnswer):
                        yield from item.unknown(f"{path}{name}[].")


def fit(shape: type[Answer], body: object) -> Answer:
    """Parse `body` as the model `shape`, and report unknown fields.

    Raises:
        AnswerError: naming the first fields that do not fit, without their contents.
    """
    try:
        answer = shape.model_validate(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
    else:
        report_unknown_fields(answer.unknown())
        return answer
    shown = [
        f"{'.'.join(map(str, problem['loc'])) or 'the body'}: "
        f"{problem['msg'].removeprefix('Value error, ')}"
        for problem in problems[:_PROBLEMS_SHOWN]
    ]
    more = len(problems) - len(shown)
    raise AnswerError(
        f"answered in another shape ({'; '.join(shown)}{f'; and {more} more' if more else ''})"
    )


# The members of a workspace, in the vendor's document and as observed live.
WORKSPACE_MEMBERS = frozenset(
    {
        "personal_team",
        "main",
        "parent_id",
        "total_monthly_email_verification_credits",
        "remaining_monthly_email_verification_credits",
        "remaining_email_verification_credits",
        "total_email_verification_credits",
        "sender_email_limit",
        "warmup_limit",
        "warmup_filter_phrase",
        "webhooks_secret_key",
        "has_access_to_warmup",
        "has_access_to_healthcheck",
        "created_at",
        "updated_at",
    }
)


class ActingWorkspace(WireAnswer):
    """The workspace in which an API key acts."""

    documented = WORKSPACE_MEMBERS

    id: Id
    name: str | None = None

    def __str__(self) -> str:
        return f"{self.id} ({excerpt(self.name)})" if self.name else str(self.id)


class _User(WireAnswer):
    documented = frozenset(
        {
            "id",
            "name",
            "email",
            "profile_photo_path",
            "profile_photo_url",
            "created_at",
            "updated_at",
        }
    )

    # The vendor's document says `team`; a live instance answered `workspace`, and no `team`.
    workspace: ActingWorkspace | None = None
    team: ActingWorkspace | None = None


class _UserAnswer(WireAnswer):
    data: _User


def acting_workspace(body: object) -> ActingWorkspace:
    """The workspace in which the API key acts, from `GET /api/users`.

    Raises:
        AnswerError: if the answer names none, or two different ones.
    """
    user = fit(_UserAnswer, body).data
    named = [acting for acting in (user.workspace, user.team) if acting is not None]
    if not named:
        raise AnswerError("answered with neither a `workspace` nor a `team`")
    if len({acting.id for acting in named}) > 1:
        raise AnswerError(f"answered with workspace {named[0].id} and with team {named[1].id}")
    return named[0]


class _Switched(WireAnswer):
    name: str


class _SwitchAnswer(WireAnswer):
    data: _Switched


def switched(body: object) -> None:
    """Validate the answer to a switch. It holds no id, only a name, which proves nothing."""
    fit(_SwitchAnswer, body)


class _NewKey(WireAnswer):
    documented = frozenset({"id", "name", "token_hash", "abilities", "created_at", "updated_at"})

    plain_text_token: SecretStr


class _NewKeyAnswer(WireAnswer):
    data: _NewKey


def new_key(body: object) -> SecretStr:
    """The API key that was created; no other answer ever shows it."""
    key = fit(_NewKeyAnswer, body).data.plain_text_token
    if not re.fullmatch(r"[0-9]+\|[A-Za-z0-9]{20,}", key.get_secret_value()):
        raise AnswerError("answered with something other than a key")
    return key


class _Stats(WireAnswer):
    documented = frozenset(
        {
            "total_leads_contacted",
            "opened",
            "opened_percentage",
            "unique_opens_per_contact",
            "unique_opens_per_contact_percentage",
            "unique_replies_per_contact_percentage",
            "bounced_percentage",
            "unsubscribed_percentage",
            "interested_percentage",
        }
    )

    emails_sent: Count
    interested: Count
    bounced: Count
    unsubscribed: Count
    replied: Count = Field(alias="unique_replies_per_contact")


class _StatsAnswer(WireAnswer):
    data: _Stats


def period_stats(body: object) -> PeriodStats:
    """The totals of a period."""
    stats = fit(_StatsAnswer, body).data
    # Not model_dump: an unknown field with the name of one of ours would replace it there.
    return PeriodStats(**{name: getattr(stats, name) for name in _Stats.model_fields})
