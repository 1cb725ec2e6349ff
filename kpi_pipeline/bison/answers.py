"""What Email Bison's answers look like, checked whole before a number of them is believed.

Shapes are the vendor's document's. Integers may come as integers or as numeric strings: the
document shows strings, instances were seen to send integers.
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

_noticed: ContextVar[set[str] | None] = ContextVar("noticed", default=None)


@contextmanager
def noticing() -> Iterator[set[str]]:
    """Collect what `notice` is told within the block."""
    fields: set[str] = set()
    token = _noticed.set(fields)
    try:
        yield fields
    finally:
        _noticed.reset(token)


def notice(fields: Iterable[str]) -> None:
    """Tell of unknown members, each by its path in the answer, such as `data[].mood`."""
    if (noticed := _noticed.get()) is None:
        return
    for field in fields:
        if len(noticed) == _MOST_IN_ONE_ANSWER:
            return
        noticed.add(excerpt(field))


_FAULTS_SHOWN = 3

# What our columns of counts and of ids hold: integer and bigint.
_LARGEST_COUNT = 2**31 - 1
_LARGEST_ID = 2**63 - 1


class AnswerError(ValueError):
    """An answer that can't be believed; the text completes "the call …"."""


def load(content: bytes) -> object:
    """The JSON of a successful answer.

    Raises:
        AnswerError: if it is empty, is no JSON, or tells of a failure in spite of its HTTP status.
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

    Text fields can hold raw control characters (observed live), which strict parsers refuse.
    """
    try:
        return json.loads(content, strict=False, object_pairs_hook=_members)
    except (ValueError, RecursionError):
        return None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Python would keep the last of two members of one name, and nobody could tell which is true.
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member stands twice")
    return members


def message_of(body: object) -> str:
    """What an error body says: its message, then the fields that 422 complains about."""
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
    """0 to `most`, written as an integer or as digits; anything else is a ValueError."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}", value):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
        return value
    raise ValueError(f"it is no {name}")


Count = Annotated[int, BeforeValidator(partial(_whole, most=_LARGEST_COUNT, name="count"))]
Id = Annotated[int, BeforeValidator(partial(_whole, most=_LARGEST_ID, name="id"))]
Answer = TypeVar("Answer", bound="WireAnswer")


class WireAnswer(BaseModel):
    """A body, or a part of one: the members that we read, and those that we know and leave.

    `documented` names the latter. Any other member is noticed, and nothing is taken from it.
    """

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    documented: ClassVar[frozenset[str]] = frozenset()

    def unknown(self, path: str = "") -> Iterator[str]:
        """The paths of the members that no document names, at any depth."""
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
    """`body` in the given shape; members that no document names are noticed.

    Raises:
        AnswerError: naming the first places that do not fit, without their contents.
    """
    try:
        answer = shape.model_validate(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
    else:
        notice(answer.unknown())
        return answer
    shown = [
        f"{'.'.join(map(str, fault['loc'])) or 'the body'}: "
        f"{fault['msg'].removeprefix('Value error, ')}"
        for fault in faults[:_FAULTS_SHOWN]
    ]
    more = len(faults) - len(shown)
    raise AnswerError(
        f"answered in another shape ({'; '.join(shown)}{f'; and {more} more' if more else ''})"
    )


class Team(WireAnswer):
    """The workspace in which a key acts."""

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
    """The workspace in which the key acts, from `GET /api/users`."""
    return fit(_UserAnswer, body).data.team


class _Switched(WireAnswer):
    name: str


class _SwitchAnswer(WireAnswer):
    data: _Switched


def switched(body: object) -> None:
    """Check the answer to a switch. It holds a name alone, so it proves nothing about the id."""
    fit(_SwitchAnswer, body)


class _NewKey(WireAnswer):
    documented = frozenset({"id", "name", "token_hash", "abilities", "created_at", "updated_at"})

    plain_text_token: SecretStr


class _NewKeyAnswer(WireAnswer):
    data: _NewKey


def new_key(body: object) -> SecretStr:
    """The key that was made; this answer is the only one that ever shows it."""
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
    # Not model_dump: a member that is called as one of our fields would take its place there.
    return PeriodStats(**{name: getattr(stats, name) for name in _Stats.model_fields})
