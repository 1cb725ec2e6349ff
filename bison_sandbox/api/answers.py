"""The form of the vendor's answers: their wrapping, and lists by page, by cursor, or whole."""

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bison_sandbox.requests import InvalidError, base_url
from bison_sandbox.state import sandbox_of

_UNDOCUMENTED = {"undocumented_flag": True, "undocumented": {"since": 3, "note": "new"}}
_ESCAPE = re.compile(r"\\(u00[01][0-9a-f]|.)")
_SHORT = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}


def answer(request: Request, data: object, status: int = 200) -> JSONResponse:
    """Data in the vendor's usual wrapping."""
    return whole_answer(request, {"data": data}, status)


def whole_answer(request: Request, content: object, status: int = 200) -> JSONResponse:
    """An answer with its complete content, changed as the sandbox's variants say."""
    variants = sandbox_of(request).variants
    if variants.extra_fields:
        content = _with_undocumented(content)
    return (_RawJSONResponse if variants.control_characters else JSONResponse)(content, status)


def text(request: Request, value: str, number: int) -> str:
    """A text field; one variant adds control characters, chosen by `number`."""
    if not sandbox_of(request).variants.control_characters:
        return value
    # Each of the 32 comes with some number; a bare line break and tab come in every text.
    return f"{value[:1]}{chr(number % 32)}{value[1:]}\n\t\x01\x0b"


def raw_json(content: object) -> bytes:
    """JSON with raw control characters, which strict parsers refuse."""
    strict = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return _ESCAPE.sub(_unescaped, strict).encode()


class _RawJSONResponse(JSONResponse):
    def render(self, content: object) -> bytes:
        return raw_json(content)


def _unescaped(escape: re.Match[str]) -> str:
    body = escape[1]
    if body.startswith("u"):
        return chr(int(body[1:], 16))
    return _SHORT.get(body, escape[0])


def _with_undocumented(content: object) -> object:
    if isinstance(content, list):
        return [_with_undocumented(each) for each in content]
    if isinstance(content, dict):
        return {key: _with_undocumented(each) for key, each in content.items()} | _UNDOCUMENTED
    return content


PER_PAGE = 15
LAST_PAGE_SERVED = 1_000

Rows = Callable[[int, int], list[dict[str, object]]]


def list_answer(request: Request, total: int, rows: Rows) -> Response:
    """The requested part of a list of `total` rows; `rows(start, stop)` returns some of them.

    15 rows per page whatever `per_page` says, and no page past 1,000: both observed live.
    """
    paging = sandbox_of(request).variants.paging
    asked = request.query_params
    if paging == "whole":
        return whole_answer(request, {"data": rows(0, total)})
    by_cursor = paging == "cursor" or (
        paging == "offer_cursor" and (asked.get("pagination_type") == "cursor" or "cursor" in asked)
    )
    # After the first page, the same list continues by cursor.
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
    """The rows from a cursor on."""
    cursor = request.query_params.get("cursor")
    start = cursor_parts(request, cursor, 1)[0] if cursor else 0
    stop = min(start + PER_PAGE, total)
    return cursor_answer(
        request,
        rows(start, stop),
        following=(stop,) if stop < total else None,
        preceding=(max(0, start - PER_PAGE),) if start else None,
    )


def cursor_answer(
    request: Request,
    rows: Sequence[object],
    following: tuple[int, ...] | None,
    preceding: tuple[int, ...] | None,
) -> Response:
    """Rows with cursors to the following and the preceding ones.

    The links drop the caller's filters: observed live.
    """
    path = _path(request)
    after, before = (
        None if parts is None else _cursor(request.url.path, parts)
        for parts in (following, preceding)
    )

    def link(cursor: str | None) -> str | None:
        return None if cursor is None else f"{path}?{urlencode({'cursor': cursor})}"

    links = {"first": None, "last": None, "prev": link(before), "next": link(after)}
    meta = {"path": path, "per_page": PER_PAGE, "next_cursor": after, "prev_cursor": before}
    return whole_answer(request, {"data": rows, "links": links, "meta": meta})


def _path(request: Request) -> str:
    return f"{base_url(request)}{request.url.path}"


def _page_number(request: Request) -> int:
    """The requested page; anything but a page number means the first, as live."""
    text = request.query_params.get("page", "")
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 10 else 1


def _cursor(path: str, parts: tuple[int, ...]) -> str:
    """An opaque text for a position in the list at this path."""
    text = " ".join([path, *map(str, parts)])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def cursor_parts(request: Request, cursor: str, count: int) -> list[int]:
    """The numbers in a cursor. Raises InvalidError for another list's cursor, or no cursor."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        text = ""
    of, *parts = text.split(" ")
    numbers = [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 19]
    if of != request.url.path or not len(parts) == len(numbers) == count:
        raise InvalidError({"cursor": ["The selected cursor is invalid."]})
    return numbers
