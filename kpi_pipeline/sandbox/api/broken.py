"""The answers that a fault gives in place of the real one, or makes of it."""

import json
from http import HTTPStatus

from starlette.responses import HTMLResponse, Response

from kpi_pipeline.sandbox.api.answers import raw_json
from kpi_pipeline.sandbox.errors import (
    ApiError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    TooManyAttemptsError,
    UnauthenticatedError,
)
from kpi_pipeline.sandbox.fault_kinds import Edit, Empty, Html, Status, SuccessFalse
from kpi_pipeline.sandbox.json_pointer import NoSuchPlaceError, with_twice, with_value, without
from kpi_pipeline.sandbox.manners import Manners

_RETRY_AFTER_SECONDS = 1
_WITHOUT_BODY = (204, 304)
_PAGE = (
    "<!DOCTYPE html>\n<html><head><title>{title}</title></head>\n"
    "<body><center><h1>{title}</h1></center><hr><center>proxy</center></body></html>\n"
)


def broken_answer(fault: Status | SuccessFalse | Empty | Html, manners: Manners) -> Response:
    """The answer in place of the real one."""
    match fault:
        case SuccessFalse():
            data = {"success": fault.value, "message": fault.message}
            return Response(json.dumps({"data": data}), media_type="application/json")
        case Empty():
            return Response(b"", media_type="application/json")
        case Html():
            return HTMLResponse(_PAGE.format(title="One moment, please"))
    return _with_status(fault, manners)


def edited(fault: Edit, body: bytes, manners: Manners) -> bytes:
    """A body with the fault's one change. Raises ApiError, a 500, where there is no such place."""
    try:
        # Not strict: by another manner, the body may hold raw control characters.
        document = json.loads(body, strict=False)
        if fault.remove:
            document = without(document, fault.pointer)
        elif fault.repeat:
            document = with_twice(document, fault.pointer)
        else:
            document = with_value(document, fault.pointer, fault.value)
    except (ValueError, NoSuchPlaceError) as error:
        raise ApiError(
            500, f"The fault `edit` finds no place {fault.pointer} that it could change so."
        ) from error
    if manners.control_characters:
        return raw_json(document)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _with_status(fault: Status, manners: Manners) -> Response:
    error = _error(fault, manners)
    headers = error.headers
    if fault.status in _WITHOUT_BODY:
        return Response(status_code=fault.status)
    if fault.html:
        title = f"{fault.status} {_phrase(fault.status)}"
        return HTMLResponse(_PAGE.format(title=fault.message or title), fault.status, headers)
    return error.response()


def _error(fault: Status, manners: Manners) -> ApiError:
    status = fault.status
    match status:
        case 401:
            message = fault.message or "Unauthenticated."
            return UnauthenticatedError(wrapped=manners.wrapped_401, message=message)
        case 422:
            message = fault.message or "The given data was invalid."
            return InvalidError({"request": [message]})
        case 429:
            wait = fault.retry_after
            if wait is None:
                wait = _RETRY_AFTER_SECONDS if manners.retry_after else False
            message = fault.message or "Too Many Attempts."
            return TooManyAttemptsError(None if wait is False else wait, message)
    usual = {403: str(ForbiddenError()), 404: str(NotFoundError()), 500: "Server Error"}
    return ApiError(status, fault.message or usual.get(status, _phrase(status)))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
