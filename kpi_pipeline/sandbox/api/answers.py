from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse

from kpi_pipeline.sandbox.errors import InvalidError

PER_PAGE = 15
LAST_PAGE_SERVED = 1_000


def answer(data: object, status: int = 200) -> JSONResponse:
    """Data in the wrapping that every answer of the vendor has."""
    return JSONResponse({"data": data}, status)


def page_of(
    request: Request, total: int, rows: Callable[[int, int], list[dict[str, object]]]
) -> JSONResponse:
    """One page of a list of `total` rows; `rows(start, stop)` gives some of them.

    15 a page whatever `per_page` says, and none past page 1,000: both observed live.
    """
    page = _page_number(request)
    if page > LAST_PAGE_SERVED:
        raise InvalidError(
            {"page": [f"The page field must not be greater than {LAST_PAGE_SERVED}."]}
        )
    start = (page - 1) * PER_PAGE
    data = rows(start, min(start + PER_PAGE, total))
    last_page = max(1, -(-total // PER_PAGE))

    def link(number: int) -> str | None:
        if not 1 <= number <= last_page:
            return None
        asked = request.query_params.multi_items()
        kept = [(name, value) for name, value in asked if name != "page"]
        return f"{path}?{urlencode([*kept, ('page', str(number))])}"

    path = f"{str(request.base_url).rstrip('/')}{request.url.path}"
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
    return JSONResponse({"data": data, "links": links, "meta": meta})


def timestamp(instant: datetime) -> str:
    """An instant as the vendor writes it: `2025-04-14T16:59:21.000000Z`."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z")


def _page_number(request: Request) -> int:
    """The page asked for; anything that is no page number is the first, as live."""
    text = request.query_params.get("page", "")
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 10 else 1
