"""Reads lists page by page: by number, by cursor, or without paging, as the instance does it."""

import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Generic, Protocol, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from kpi_pipeline.bison.answers import (
    WORKSPACE_MEMBERS,
    AnswerError,
    Count,
    Id,
    WireAnswer,
    fit,
)
from kpi_pipeline.bison.calls import Answered, Call
from kpi_pipeline.bison.errors import BisonError
from kpi_pipeline.bison.model import Webhook, Workspace

_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")

T = TypeVar("T")
EntryT = TypeVar("EntryT", bound="Entry")
Params = Mapping[str, str | int]


class Entry(WireAnswer):
    """An entry of a list."""

    @property
    def identity(self) -> object:
        """Equal for two entries that are the same; None if nothing tells this one from others."""
        raise NotImplementedError


class Row(Entry):
    """An entry with an id, which alone is its identity."""

    id: Id

    @property
    def identity(self) -> object:
        """The id."""
        return self.id


class WorkspaceRow(Row):
    """A workspace as it is listed."""

    documented = WORKSPACE_MEMBERS

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


class PlanRow(Entry):
    """What one campaign plans to send on a day."""

    documented = frozenset({"campaign"})

    emails_being_sent: Count
    campaign_id: int | str | None = None

    @property
    def identity(self) -> object:
        """The id of the campaign, if it is named."""
        return self.campaign_id


class _PageMeta(WireAnswer):
    documented = frozenset({"from", "links", "path", "per_page", "to"})

    current_page: Count
    last_page: Count
    total: Count | None = None


class _CursorMeta(WireAnswer):
    documented = frozenset({"path", "per_page", "prev_cursor"})

    next_cursor: Annotated[str, Field(min_length=1)] | None


class Listed(WireAnswer, Generic[EntryT]):
    """One answer of a list; `meta` says how it is paged."""

    data: list[EntryT]
    links: Any = None
    # Seen as null and as an empty list where there is none.
    meta: Annotated[_PageMeta | _CursorMeta | None, BeforeValidator(lambda meta: meta or None)] = (
        None
    )


class ListedWorkspaces(Listed[WorkspaceRow]):
    """An answer of `GET /api/workspaces/v1.1`."""


class ListedWebhooks(Listed[WebhookRow]):
    """An answer of `GET /api/webhook-url`."""


def _no_campaign_twice(rows: list[PlanRow]) -> list[PlanRow]:
    campaigns = [row.campaign_id for row in rows if row.campaign_id is not None]
    if len(set(campaigns)) < len(campaigns):
        raise ValueError("it lists a campaign twice")
    return rows


class ListedPlans(Listed[PlanRow]):
    """An answer of `GET /api/campaigns/sending-schedules`."""

    data: Annotated[list[PlanRow], AfterValidator(_no_campaign_twice)]


class Ask(Protocol):
    """Makes a call and decodes its answer, as `Caller.call` does for one access."""

    async def __call__(self, call: Call, decode: Callable[[object], T]) -> Answered[T]:
        """The decoded answer."""
        ...


FIRST_PAGE: Params = {"page": 1}


async def every_row(
    ask: Ask,
    listing: Call,
    shape: type[Listed[EntryT]],
    *,
    first: Params = FIRST_PAGE,
    is_empty: Callable[[BisonError], bool] = lambda _: False,
) -> AsyncIterator[EntryT]:
    """Each entry of a list once, in the order in which the instance gives them.

    The answer itself says in `meta` how it is paged: by number, by cursor, or not at all. Every
    request repeats the filters of `listing`: the link to the next page drops them (observed live).
    The first request has the parameters `first`; an error of it means a list without entries where
    `is_empty` says so. By number, an instance rejects pages beyond about 1,000.

    Raises:
        AnswerError: if a page is not the one asked for, a cursor or a page comes twice, the way of
            paging changes more than once, entries of several pages can't be told apart, or the list
            is shorter than the total that it named first. The caller must not use the entries
            before the error: the list would hide others.
        BisonError: if a call fails.
    """
    seen: set[object] = set()
    unnamed = 0
    asked: list[Params] = []
    ways: list[type] = []
    total: int | None = None
    position: Params | None = first
    while position is not None:
        if position in asked:
            raise AnswerError("answered with a cursor that it had given before")
        asked.append(position)
        call = _at(listing, position)
        try:
            answer = (await ask(call, partial(_of_position, shape, position))).value
        except BisonError as error:
            if len(asked) == 1 and is_empty(error):
                return
            raise
        # Another way of paging starts again with the first page.
        another_way = not ways or ways[-1] is not type(answer.meta)
        if another_way:
            ways.append(type(answer.meta))
        if len(ways) > 2:
            raise AnswerError("changed its way of paging again and again")
        # New entries shift the others to later pages: one can be on two pages, and the list must
        # reach the total that was named first.
        if total is None and isinstance(answer.meta, _PageMeta):
            total = answer.meta.total
        found = len(seen) + unnamed
        for row in answer.data:
            if row.identity is None:
                unnamed += 1
            elif row.identity in seen:
                continue
            else:
                seen.add(row.identity)
            yield row
        if answer.data and len(seen) + unnamed == found and not another_way:
            raise AnswerError("answered with a page that it had given before")
        position = _following(answer.meta)
        if unnamed and (position or len(asked) > 1):
            raise AnswerError("answered with several pages of entries that nothing tells apart")
    if total is not None and len(seen) + unnamed < total:
        raise AnswerError(f"listed {len(seen) + unnamed} of {total} entries")


def _at(listing: Call, position: Params) -> Call:
    return replace(listing, params={**(listing.params or {}), **position})


def _of_position(shape: type[Listed[EntryT]], position: Params, body: object) -> Listed[EntryT]:
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
