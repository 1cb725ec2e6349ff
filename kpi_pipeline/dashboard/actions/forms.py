"""What all forms share: who may send one, how it is read, and where the browser goes next."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from urllib.parse import parse_qsl

from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from kpi_pipeline.dashboard.formatting import visible
from kpi_pipeline.dashboard.site import Site, require_editor, site
from kpi_pipeline.db.registry.clients import Client, find_client
from kpi_pipeline.errors import KpiError

Fields = Mapping[str, str]

_LARGEST = 8192
_MOST_FIELDS = 20
_FORM = "application/x-www-form-urlencoded"


def submitted(handle: Callable[[Request, Fields], Response]) -> Callable[..., Awaitable[Response]]:
    """A handler of POST for a form: it reads the fields, and does the work in a thread.

    It takes forms of editors alone, from a page of the same session. What a KpiError says is shown.
    """

    async def post(request: Request) -> Response:
        require_editor(request)
        fields = await _read(request)
        site(request).require_form_token(request, fields.get("form_token", ""))
        try:
            return await run_in_threadpool(handle, request, fields)
        except KpiError as error:
            raise HTTPException(HTTPStatus.CONFLICT, str(error)) from None

    return post


def for_editors(handle: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """A handler of GET for the page on which an action is confirmed."""

    def get(request: Request) -> Response:
        require_editor(request)
        return handle(request)

    return get


def redirect(of: Site, path: str) -> Response:
    """Has the browser open a path of this site with GET."""
    headers = {"Location": of.path(path), "Cache-Control": "no-store"}
    return Response(status_code=HTTPStatus.SEE_OTHER, headers=headers)


def known_client(connection: Connection, request: Request, *, active: bool = False) -> Client:
    """The client that the path names.

    Raises:
        HTTPException: 404 if there is none, 409 if it is inactive and must be active.
    """
    workspace = request.path_params["workspace"]
    client = find_client(connection, workspace)
    if client is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"There is no client {workspace}.")
    if active and not client.active:
        raise HTTPException(
            HTTPStatus.CONFLICT, f"{visible(client.label)} is not active. Activate it first."
        )
    return client


async def _read(request: Request) -> Fields:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise HTTPException(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the form of the page.")
    body = b""
    try:
        async for part in request.stream():
            body += part
            if len(body) > _LARGEST:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "This form is too large.")
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except (ClientDisconnect, ValueError):
        raise HTTPException(HTTPStatus.BAD_REQUEST, "Send the form of the page.") from None
