"""Reads lists page by page: by number, by cursor, or without paging, as the instance does it."""

import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Generic, Protocol, TypeVar

from pydantic import BeforeValidator, Field, SecretStr

from kpi_pipeline.bison.answers import AnswerError, Count, Id, WireAnswer, fit
from kpi_pipeline.bison.calls import Answered, Call
from kpi_pipeline.bison.model import Reply, Webhook, Workspace

_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")

T = TypeVar("T")
Params = Mapping[str, str | int]


class Row(WireAnswer):
    """An entry of a list. The id alone says whether two entries are the same."""

    id: Id


RowT = TypeVar("RowT", bound=Row)


class WorkspaceRow(Row):
    """A workspace as it is listed."""

    documented = frozenset({"personal_team", "main", "parent_id", "created_at", "updated_at"})

    name: str

    def workspace(self) -> Workspace:
        """The workspace, with its name trimmed and on one line."""
        return Workspace(id=self.id, name=_CONTROL.sub(" ", self.name).strip())


class WebhookRow(Row):
    """A webhook of a workspace as it is listed."""

    documented = frozenset({"created_at", "updated_at"})

    name: str
    url: SecretStr
    events: list[str]

    def webhook(self) -> Webhook:
        """The webhook, with the types of event in lower case: both cases were seen."""
        return Webhook(self.id, self.name, self.url, frozenset(map(str.lower, self.events)))


class ReplyRow(Row):
    """A reply as it is listed, without personal data: what people wrote, and who they are."""

    documented = frozenset(
        {
            "email_subject",
            "automated_reply",
            "text_body",
            "html_body",
            "type",
            "folder",
            "from_name",
            "from_email_address",
            "to",
            "cc",
            "lead_id",
        }
    )

    uuid: str | None = None
    interested: bool
    date_received: datetime

    def reply(self) -> Reply:
        """The reply, without personal data."""
        return Reply(self.id, self.uuid, self.interested, self.date_received)


class _PageMeta(WireAnswer):
    documented = frozenset({"from", "path", "per_page", "to"})

    current_page: Count
    last_page: Count
    total: Count | None = None


class _CursorMeta(WireAnswer):
    documented = frozenset({"path", "per_page", "prev_cursor"})

    next_cursor: Annotated[str, Field(min_length=1)] | None


class Listed(WireAnswer, Generic[RowT]):
    """One answer of a list; `meta` says how it is paged."""

    data: list[RowT]
    links: Any = None
    # Seen as null and as an empty list where there is none.
    meta: Annotated[_PageMeta | _CursorMeta | None, BeforeValidator(lambda meta: meta or None)] = (
        None
    )


class ListedWorkspaces(Listed[WorkspaceRow]):
    """An answer of `GET /api/workspaces/v1.1`."""


class ListedWebhooks(Listed[WebhookRow]):
    """An answer of `GET /api/webhook-url`."""


class ListedReplies(Listed[ReplyRow]):
    """An answer of `GET /api/replies`."""


class Ask(Protocol):
    """Makes a call and decodes its answer, as `Caller.call` does for one access."""

    async def __call__(self, call: Call, decode: Callable[[object], T]) -> Answered[T]:
        """The decoded answer."""
        ...


async def every_row(
    ask: Ask, listing: Call, shape: type[Listed[RowT]], *, prefer_cursor: bool = False
) -> AsyncIterator[RowT]:
    """Each entry of a list once, in the order in which the instance gives them.

    The answer itself says in `meta` how it is paged: by number, by cursor, or not at all. Every
    request repeats the filters of `listing`: the link to the next page drops them (observed live).
    `prefer_cursor` asks for cursors, which some instances offer, and which have no last page; by
    number, an instance rejects pages beyond about 1,000.

    Raises:
        AnswerError: if a page is not the one asked for, a cursor comes twice, the way of paging
            changes more than once, or the list is shorter than the total that it named first. The
            caller must not use the entries before the error: the list would hide others.
        BisonError: if a call fails.
    """
    seen: set[int] = set()
    asked: list[Params] = []
    ways: list[type] = []
    total: int | None = None
    position: Params | None = {"pagination_type": "cursor"} if prefer_cursor else {"page": 1}
    while position is not None:
        if position in asked:
            raise AnswerError("answered with a cursor that it had given before")
        asked.append(position)
        answer = (await ask(_at(listing, position), partial(_of_position, shape, position))).value
        # Another way of paging starts again with the first page.
        if not ways or ways[-1] is not type(answer.meta):
            ways.append(type(answer.meta))
        if len(ways) > 2:
            raise AnswerError("changed its way of paging again and again")
        # New entries shift the others to later pages: one can be on two pages, and the list must
        # reach the total that was named first.
        if total is None and isinstance(answer.meta, _PageMeta):
            total = answer.meta.total
        for row in answer.data:
            if row.id not in seen:
                seen.add(row.id)
                yield row
        position = _following(answer.meta)
    if total is not None and len(seen) < total:
        raise AnswerError(f"listed {len(seen)} of {total} entries")


def _at(listing: Call, position: Params) -> Call:
    return replace(listing, params={**(listing.params or {}), **position})


def _of_position(shape: type[Listed[RowT]], position: Params, body: object) -> Listed[RowT]:
    answer = fit(shape, body)
    # Where cursors were asked for, an answer by number begins with its first page.
    wanted = position.get("page", 1)
    if isinstance(meta := answer.meta, _PageMeta):
        if meta.current_page != wanted:
            raise AnswerError(f"answered with page {meta.current_page}, not {wanted}")
        if meta.total is not None and meta.last_page > max(meta.total, 1):
            raise AnswerError(f"answered with {meta.last_page} pages for {meta.total} entries")
    elif meta is None and isinstance(answer.links, dict) and answer.links.get("next"):
        raise AnswerError("answered with a link to a next page, but without `meta`")
    return answer


def _following(meta: _PageMeta | _CursorMeta | None) -> Params | None:
    """The parameters that ask for the next page; None after the last one."""
    if isinstance(meta, _CursorMeta) and meta.next_cursor:
        return {"pagination_type": "cursor", "cursor": meta.next_cursor}
    if isinstance(meta, _PageMeta) and meta.current_page < meta.last_page:
        return {"page": meta.current_page + 1}
    return None
