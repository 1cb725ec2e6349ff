"""Reading what a request brought, with the vendor's words for what is wrong with it."""

import json
import re
from datetime import date
from urllib.parse import urlsplit

import httpx
from starlette.requests import Request

from kpi_pipeline.sandbox.errors import InvalidError

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


async def json_body(request: Request) -> dict[str, object]:
    """The body as a JSON object; an empty one for no body, or for one that is no object."""
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


async def json_object(request: Request) -> dict[str, object]:
    """The body, which must be a JSON object. Raises InvalidError."""
    try:
        body = json.loads(await request.body())
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise InvalidError({"body": ["The body must be a JSON object."]})
    return body


def text_field(body: dict[str, object], field: str) -> str:
    """A required text. Raises InvalidError."""
    value = body.get(field)
    if value is None or value == "":
        raise InvalidError({field: [f"The {field} field is required."]})
    if not isinstance(value, str):
        raise InvalidError({field: [f"The {field} field must be a string."]})
    return value


def integer_field(body: dict[str, object], field: str) -> int:
    """A required whole number. Raises InvalidError."""
    value = body.get(field)
    label = field.replace("_", " ")
    if value is None:
        raise InvalidError({field: [f"The {label} field is required."]})
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidError({field: [f"The {label} field must be an integer."]})
    return value


def is_url(text: str) -> bool:
    """Whether a text is an address that something can be sent to."""
    try:
        parts, port = urlsplit(text), urlsplit(text).port
        host = httpx.URL(text).host
    except (httpx.InvalidURL, ValueError):
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname and host) and port != 0


def base_url(request: Request) -> str:
    """The instance's address as the caller sees it."""
    return str(request.base_url).rstrip("/")


def period(request: Request) -> tuple[date, date]:
    """`start_date` and `end_date` of the query, both inclusive. Raises InvalidError."""
    errors: dict[str, list[str]] = {}
    days: dict[str, date] = {}
    for field in ("start_date", "end_date"):
        label = field.replace("_", " ")
        text = request.query_params.get(field)
        if not text:
            errors[field] = [f"The {label} field is required."]
            continue
        day = _date(text)
        if day is None:
            errors[field] = [f"The {label} field must match the format Y-m-d."]
        else:
            days[field] = day
    if errors:
        raise InvalidError(errors)
    first, last = days["start_date"], days["end_date"]
    if last < first:
        message = "The end date field must be a date after or equal to start date."
        raise InvalidError({"end_date": [message]})
    return first, last


def _date(text: str) -> date | None:
    if not _DATE.fullmatch(text):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
