"""Errors as the vendor's API words them: JSON, wrapped, and never a page of HTML."""

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class ApiError(Exception):
    """An answer that says what is wrong; `errors` names the fields of a 422."""

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
    """There is no such record, or no more."""

    def __init__(self) -> None:
        super().__init__(404, "record_not_found")


class ForbiddenError(ApiError):
    """The key is good, but not for this; the sentence was observed live."""

    def __init__(self) -> None:
        super().__init__(
            403,
            "This action is unauthorized. The api key does not match the workspace the record "
            "is on.",
        )


class UnauthenticatedError(ApiError):
    """The key is unknown or revoked. The body may come without the wrapping of other errors."""

    def __init__(self, *, wrapped: bool, message: str = "Unauthenticated.") -> None:
        super().__init__(401, message)
        self._wrapped = wrapped

    def response(self) -> JSONResponse:
        """The answer to send."""
        return super().response() if self._wrapped else JSONResponse({"message": str(self)}, 401)


class TooManyAttemptsError(ApiError):
    """The caller is to wait, for as long as Retry-After says where the answer has it."""

    def __init__(self, retry_after: int | str | None, message: str = "Too Many Attempts.") -> None:
        headers = None if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(429, message, headers=headers)


class InvalidError(ApiError):
    """Some fields of the request are missing or wrong."""

    def __init__(self, errors: dict[str, list[str]]) -> None:
        super().__init__(422, next(iter(errors.values()))[0], errors=errors)


async def answer_api_error(_: Request, error: Exception) -> Response:
    """Starlette's handler of a ApiError."""
    if not isinstance(error, ApiError):
        raise error
    return error.response()


async def answer_http_error(request: Request, error: Exception) -> Response:
    """Starlette's handler of what its own routing refuses: an unknown path, a wrong method."""
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
