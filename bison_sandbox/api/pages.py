"""The lists of the vendor's answers: by pages, by a cursor, or whole."""

import base64
import binascii
from collections.abc import Callable
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from bison_sandbox.api.answers import whole_answer
from bison_sandbox.requests import InvalidError, base_url
from bison_sandbox.state import sandbox_of

PER_PAGE = 15
LAST_PAGE_SERVED = 1_000

Rows = Callable[[int, int], list[dict[str, object]]]


def list_answer(request: Request, total: int, rows: Rows) -> Response:
    """A list of `total` rows, or the part of it that was asked for; `rows(start, stop)` gives some.

    15 a page whatever `per_page` says, and no page past 1,000: both observed live.
    """
    paging = sandbox_of(request).variants.paging
    asked = request.query_params
    if paging == "whole":
        return whole_answer(request, {"data": rows(0, total)})
    by_cursor = paging == "cursor" or (
        paging == "offer_cursor" and (asked.get("pagination_type") == "cursor" or "cursor" in asked)
    )
    # The middle of a walk that began with a page: the same list goes on in another variant.
    changed = paging == "changing" and ("cursor" in asked or _page_number(request) > 1)
    if by_cursor or changed:
        return _by_cursor(request, total, rows)
    return _by_page(request, total, rows)


def _by_page(request: Request, total: int, rows: Rows) -> Response:
    page = _page_number(request)
    if page > LAST_PAGE_SERVED:
        raise InvalidError(
            {"page": [f"The page field must not be greater than {LAST_PAGE_SERVED}."]}
        )
    start = (page - 1) * PER_PAGE
    data = rows(start, min(start + PER_PAGE, total))
    last_page = max(1, -(-total // PER_PAGE))
    path = _path(request)

    def link(number: int) -> str | None:
        if not 1 <= number <= last_page:
            return None
        asked = request.query_params.multi_items()
        kept = [(name, value) for name, value in asked if name != "page"]
        return f"{path}?{urlencode([*kept, ('page', str(number))])}"

    links = {
        "first": link(1),
        "last": link(last_page),
        "prev": link(page - 1),
        "next": link(page + 1),
    }
    meta = {
        "current_page": page,
        "from": start + 1 if data else None,
        "last_page": last_page,
        "path": path,
        "per_page": PER_PAGE,
        "to": start + len(data) if data else None,
        "total": total,
    }
    return whole_answer(request, {"data": data, "links": links, "meta": meta})


def _by_cursor(request: Request, total: int, rows: Rows) -> Response:
    """The rows from a cursor on. The links leave out the caller's filters: observed live."""
    cursor = request.query_params.get("cursor")
    start = _start_of(cursor, request.url.path) if cursor else 0
    stop = min(start + PER_PAGE, total)
    path = _path(request)
    following = _cursor(request.url.path, stop) if stop < total else None
    preceding = _cursor(request.url.path, max(0, start - PER_PAGE)) if start else None

    def link(cursor: str | None) -> str | None:
        return None if cursor is None else f"{path}?{urlencode({'cursor': cursor})}"

    links = {"first": None, "last": None, "prev": link(preceding), "next": link(following)}
    meta = {
        "path": path,
        "per_page": PER_PAGE,
        "next_cursor": following,
        "prev_cursor": preceding,
    }
    return whole_answer(request, {"data": rows(start, stop), "links": links, "meta": meta})


def _path(request: Request) -> str:
    return f"{base_url(request)}{request.url.path}"


def _page_number(request: Request) -> int:
    """The page asked for; anything that is no page number is the first, as live."""
    text = request.query_params.get("page", "")
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 10 else 1


def _cursor(path: str, start: int) -> str:
    """An opaque text for a place in the list at this path."""
    return base64.urlsafe_b64encode(f"{path} {start}".encode()).decode().rstrip("=")


def _start_of(cursor: str, path: str) -> int:
    """The place that a cursor means. Raises InvalidError for one of another list, or for none."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        text = ""
    of, _, start = text.rpartition(" ")
    if of != path or not (start.isascii() and start.isdigit() and len(start) < 10):
        raise InvalidError({"cursor": ["The selected cursor is invalid."]})
    return int(start)
