"""Dagster's page, as `kpi up` runs it: Dagster's own application behind the guard.

Dagster's takes commands from any web page that a browser on this machine opens: mutations by GET
and in bodies of any type. Its routes, and what becomes of each:

- /graphql: GET and WebSockets read; a mutation takes POST with JSON, and an editor.
- /report_asset_materialization, /report_asset_check, /report_asset_observation: write events; the
  same.
- /server_info, /dagit_info, /logs, /download_debug, /notebook, the files of the page, and the page
  for every other path: read, by GET alone; they need the login.
"""

import json
import os
import sys
from typing import Any
from urllib.parse import parse_qs

from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kpi_pipeline.db.server.addresses import kpi_address
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.dagster_private import run_page
from kpi_pipeline.settings import load_settings
from kpi_pipeline.settings.logs import log_to_standard_error
from kpi_pipeline.web.access import require_login
from kpi_pipeline.web.guard import Guard, deny
from kpi_pipeline.web.origins import Rejection

_READS = ("GET", "HEAD")
# Of the users alone; Dagster has connections of its own.
_POOL_SIZE = 1
_LARGEST_QUERY = 4 * 1024 * 1024
_NOT_JSON = Rejection(
    415, "Send this with POST and the header Content-Type: application/json, as the page does."
)
_BY_GET = Rejection(405, "GET only reads: send a mutation with POST, and one document a request.")
_READ_ONLY = Rejection(
    403, "You are logged in to read only. To change something, log in as an editor."
)
_TOO_LARGE = Rejection(413, "This query is larger than the 4 MiB that are read.")


class DagsterRules:
    """Lets requests to Dagster's application change something only as its own page does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or one WebSocket."""
        # Over WebSockets, Dagster executes subscriptions alone.
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        rejection, receive = await _judged(scope, receive)
        app = self._app if rejection is None else deny(scope, rejection)
        await app(scope, receive, send)


async def _judged(scope: Scope, receive: Receive) -> tuple[Rejection | None, Receive]:
    """Why a request is not for Dagster, if so; and its body, again to be received."""
    is_graphql = scope["path"].rstrip("/").endswith("/graphql")
    if scope["method"] in _READS:
        queries = parse_qs(scope["query_string"].decode("latin-1")).get("query", [])
        return (_BY_GET if is_graphql and not all(map(reads_only, queries)) else None), receive
    types = Headers(scope=scope).getlist("content-type")
    if len(types) != 1 or types[0].partition(";")[0].strip().lower() != "application/json":
        return _NOT_JSON, receive
    if scope["user"].may_edit:
        return None, receive
    if not is_graphql or scope["method"] != "POST":
        return _READ_ONLY, receive
    body = await _body(receive)
    if body is None:
        return _TOO_LARGE, receive
    return (None if reads_only(_query(body)) else _READ_ONLY), _again(body, receive)


def reads_only(document: object) -> bool:
    """Whether a GraphQL document has no mutation in any of its operations.

    One that can't be parsed has none: Dagster parses it with the same library, and says so.
    """
    if not isinstance(document, str):
        return False
    try:
        definitions = parse(document).definitions
    except GraphQLError:
        return True
    return not any(
        isinstance(it, OperationDefinitionNode) and it.operation is OperationType.MUTATION
        for it in definitions
    )


def _query(body: bytes) -> object:
    """The document in a body, read as Dagster reads it."""
    try:
        content: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content.get("query") if isinstance(content, dict) else None


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None if it is too large."""
    body = b""
    while True:
        message = await receive()
        part: bytes = message.get("body", b"")
        body += part
        if len(body) > _LARGEST_QUERY:
            return None
        if not message.get("more_body", False):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """Receives the body once more, and then what follows it."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return left.pop() if left else await receive()

    return receive_again


def _may_write(connection: Any) -> bool:
    visitor = getattr(connection, "scope", {}).get("user")
    # Dagster asks for its own requests, too, which come from no person.
    return visitor is None or visitor.may_edit


def main() -> None:
    """Serve the page; the arguments are those of `dagster-webserver`.

    Raises:
        KpiError: if no KPI database is configured, or the page needs a login and has none.
    """
    settings = load_settings()
    log_to_standard_error(settings.log_format, "kpi_pipeline")
    page = settings.dagster_page
    if settings.database_url is None:
        raise KpiError(
            "KPI_DATABASE_URL is not set in this process: it has the users who may log in to "
            "Dagster's page. `kpi up` sets it."
        )
    engine = open_engine(kpi_address(settings), pool_size=_POOL_SIZE)
    require_login(settings, engine, page.address, page.setting)
    # Not for uvicorn: the guard reads the headers of proxies.
    os.environ["FORWARDED_ALLOW_IPS"] = ""
    address = ["--host", page.address, "--port", str(page.port)]
    run_page(
        lambda app, _: Guard(DagsterRules(app), settings, page, engine),
        _may_write,
        [*address, "--path-prefix", page.path_prefix, *sys.argv[1:]],
    )


if __name__ == "__main__":
    try:
        main()
    except KpiError as error:
        sys.exit(f"Error: {error}")
