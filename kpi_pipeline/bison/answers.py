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

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from kpi_pipeline.bison.errors import excerpt
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
_LARGEST_COUNT = 2**31 - 1
_LARGEST_ID = 2**63 - 1


class AnswerError(ValueError):
    """An answer that can't be believed; its text continues "the call …"."""


def load(content: bytes) -> object:
    """The JSON of a successful answer.

    Raises:
        AnswerError: if it is empty, is no JSON, or reports a failure in spite of its HTTP status.
    """
    if not content.strip():
        raise AnswerError("answered with an empty body")
    body = loads(content)
    if body is None:
        raise AnswerError("answered with something other than JSON")
    # Observed live: HTTP 200 with {"data": {"success": false}}, the false also as a string.
    for part in (body, body.get("data") if isinstance(body, dict) else None):
        if isinstance(part, dict) and str(part.get("success")).strip().lower() == "false":
            raise AnswerError(
                f"answered with a failure: {message_of(body) or 'it gives no reason'}"
            )
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
    """The message of an error body, followed by its errors by field, as 422 has them."""
    parts = []
    for part in (body, body.get("data") if isinstance(body, dict) else None):
        if not isinstance(part, dict):
            continue
        if isinstance(message := part.get("message"), str):
            parts.append(message)
        if isinstance(errors := part.get("errors"), dict):
            parts += [f"{field}: {text}" for field, text in errors.items()]
    return "; ".join(parts)


def _whole(value: object, most: int, name: str) -> int:
    """A number from 0 to `most`, an integer or digits; anything else is a ValueError."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
        return value
    raise ValueError(f"it is no {name}")


Count = Annotated[int, BeforeValidator(partial(_whole, most=_LARGEST_COUNT, name="count"))]
Id = Annotated[int, BeforeValidator(partial(_whole, most=_LARGEST_ID, name="id"))]
Answer = TypeVar("Answer", bound="WireAnswer")


class WireAnswer(BaseModel):
    """Base of all response models: declared fields are parsed, `documented` ones ignored, others
    reported.
    """

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    documented: ClassVar[frozenset[str]] = frozenset()

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


class Team(WireAnswer):
    """The workspace in which an API key acts."""

    documented = frozenset({"personal_team", "main", "parent_id", "created_at", "updated_at"})

    id: Id
    name: str | None = None

    def __str__(self) -> str:
        return f"{self.id} ({excerpt(self.name)})" if self.name else str(self.id)


class _User(WireAnswer):
    documented = frozenset({"id", "name", "email"})

    team: Team


class _UserAnswer(WireAnswer):
    data: _User


def acting_team(body: object) -> Team:
    """The workspace in which the API key acts, from `GET /api/users`."""
    return fit(_UserAnswer, body).data.team


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


class _Plan(WireAnswer):
    documented = frozenset({"campaign"})

    emails_being_sent: Count
    campaign_id: int | str | None = None


class _PlansAnswer(WireAnswer):
    data: list[_Plan]


def planned_emails(body: object) -> int:
    """Emails planned over all campaigns of the workspace; no campaign at all is 0."""
    plans = fit(_PlansAnswer, body).data
    campaigns = [plan.campaign_id for plan in plans if plan.campaign_id is not None]
    if len(set(campaigns)) < len(campaigns):
        raise AnswerError("answered with a campaign twice")
    return sum(plan.emails_being_sent for plan in plans)


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
