"""Reads requests, and raises errors in the vendor's words."""

import json
import re
from collections.abc import Iterable
from datetime import date
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class ApiError(Exception):
    """An error answer; `errors` has the messages by field, for a 422."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        errors: dict[str, list[str]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.errors = errors
        self.headers = headers

    def response(self) -> JSONResponse:
        """The answer to send."""
        data: dict[str, object] = {"success": False, "message": str(self)}
        if self.errors is not None:
            data["errors"] = self.errors
        return JSONResponse({"data": data}, self.status, self.headers)


class NotFoundError(ApiError):
    """The record does not exist (any more)."""

    def __init__(self) -> None:
        super().__init__(404, "record_not_found")


class ForbiddenError(ApiError):
    """The API key is valid, but not for this; the sentence was observed live."""

    def __init__(self) -> None:
        super().__init__(
            403,
            "This action is unauthorized. The api key does not match the workspace the record "
            "is on.",
        )


class UnauthenticatedError(ApiError):
    """The API key is unknown or revoked. The body may lack the wrapping of other errors."""

    def __init__(self, *, wrapped: bool, message: str = "Unauthenticated.") -> None:
        super().__init__(401, message)
        self._wrapped = wrapped

    def response(self) -> JSONResponse:
        """The answer to send."""
        return super().response() if self._wrapped else JSONResponse({"message": str(self)}, 401)


class TooManyAttemptsError(ApiError):
    """The caller must wait, for as long as Retry-After says if the answer has it."""

    def __init__(self, retry_after: int | str | None, message: str = "Too Many Attempts.") -> None:
        headers = None if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(429, message, headers=headers)


class InvalidError(ApiError):
    """Some fields of the request are missing or wrong."""

    def __init__(self, errors: dict[str, list[str]]) -> None:
        super().__init__(422, next(iter(errors.values()))[0], errors=errors)


async def answer_api_error(_: Request, error: Exception) -> Response:
    """Starlette's handler of an ApiError."""
    if not isinstance(error, ApiError):
        raise error
    return error.response()


async def answer_http_error(request: Request, error: Exception) -> Response:
    """Starlette's handler of its own errors: an unknown path, a wrong method."""
    if not isinstance(error, HTTPException):
        raise error
    path = request.url.path.lstrip("/")
    messages = {
        404: f"The route {path} could not be found.",
        405: f"The {request.method} method is not supported for route {path}.",
    }
    message = messages.get(error.status_code, error.detail)
    headers = dict(error.headers) if error.headers else None
    return ApiError(error.status_code, message, headers=headers).response()


VERBATIM = "verbatim"
"""The type of a custom error whose message is a complete sentence."""

_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def invalid_fields(error: ValidationError, known: Iterable[str]) -> InvalidError:
    """A 422 that names each invalid field; `known` are the names of all fields."""
    errors: dict[str, list[str]] = {}
    for each in error.errors(include_url=False, include_input=False):
        field = str(each["loc"][0]) if each["loc"] else "body"
        expected = each.get("ctx", {}).get("expected")
        if each["type"] == VERBATIM:
            sentence = each["msg"]
        elif each["type"] in _UNKNOWN:
            sentence = f"The {field} field is unknown. Known are {', '.join(sorted(known))}."
        elif each["type"] == "missing":
            sentence = f"The {field} field is required."
        elif each["type"] == "literal_error":
            sentence = f"The selected {field} is invalid. Allowed are {expected}."
        else:
            sentence = f"The {field} field is invalid: {each['msg'][:1].lower()}{each['msg'][1:]}."
        errors.setdefault(field, []).append(sentence)
    return InvalidError(errors)


_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


async def json_body(request: Request) -> dict[str, object]:
    """The body as a JSON object; empty if there is no body or no object."""
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
    """Whether a text is a URL that a request can be sent to."""
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


def date_field(request: Request, field: str) -> date | None:
    """A date of the query; None without one. Raises InvalidError."""
    text = request.query_params.get(field)
    day = _date(text) if text else None
    if text and day is None:
        label = field.replace("_", " ")
        raise InvalidError({field: [f"The {label} field must match the format Y-m-d."]})
    return day


def _date(text: str) -> date | None:
    if not _DATE.fullmatch(text):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
