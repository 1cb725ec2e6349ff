"""The dashboard as an ASGI application, behind the guard."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kpi_pipeline.dashboard import accuracy, actions, client, compare, prometheus, report, year
from kpi_pipeline.dashboard.api import routes as api
from kpi_pipeline.dashboard.api.answers import json_answer
from kpi_pipeline.dashboard.live import Live
from kpi_pipeline.dashboard.overview import page as overview
from kpi_pipeline.dashboard.site import STATIC, Site, site
from kpi_pipeline.web.guard import Guard

# Scripts and styles come from this site alone, and none is inline: text from outside that got into
# a page as markup would still do nothing.
_HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


# A page is 2 % larger than at the highest level, and compressed in 60 % of the time.
_COMPRESSION = 6


def create_app(of: Site, live: Live | None = None) -> ASGIApp:
    """The dashboard for one installation, which lets in whom its guard lets in.

    `live` are its live pages; given where a server ends them before it stops.
    """
    pages = live or Live(of)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with pages.running():
            yield
        of.close()

    prefix = of.settings.dashboard_path_prefix
    app = Starlette(
        routes=[Mount(prefix, routes=_ROUTES)] if prefix else _ROUTES,
        middleware=[Middleware(GZipMiddleware, minimum_size=1000, compresslevel=_COMPRESSION)],
        exception_handlers={HTTPException: _error, Exception: _error},
        lifespan=lifespan,
    )
    app.state.site = of
    app.state.live = pages
    # Around all of Starlette: the page of an error of ours has the headers, too.
    guarded = _Headers(app)
    return Guard(guarded, of.settings, of.settings.dashboard_page, of.engine, public=["/healthz"])


class _Headers:
    """Adds the headers that tell a browser what the page may load."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                versioned = "/static/" in scope["path"] and b"v=" in scope["query_string"]
                kept = [(b"cache-control", b"public, max-age=31536000, immutable")]
                message["headers"] = [*message["headers"], *_HEADERS, *(kept if versioned else ())]
            await send(message)

        await self._app(scope, receive, send_with_headers)


async def _alive(_: Request) -> Response:
    return PlainTextResponse("alive\n")


def _error(request: Request, error: Exception) -> Response:
    """A page, or JSON for the data API, with one sentence; its cause is in the log alone."""
    status, sentence = 500, "Something went wrong here. The log of the dashboard says what."
    headers: Mapping[str, str] = {}
    if isinstance(error, HTTPException):
        status, sentence, headers = error.status_code, error.detail, error.headers or {}
    if "user" not in request.scope:
        # On a path that needs no login, whose visitor is unknown.
        return PlainTextResponse(f"{sentence}\n", status, headers)
    if request.url.path.startswith(site(request).path("/api/")):
        return json_answer({"error": sentence}, status, headers)
    answer = site(request).render(
        request, "error.html", status_code=status, sentence=sentence, status=status
    )
    answer.headers.update(headers)
    return answer


_ROUTES = [
    *actions.ROUTES,
    *api.ROUTES,
    *client.ROUTES,
    *overview.ROUTES,
    *compare.ROUTES,
    *year.ROUTES,
    *accuracy.ROUTES,
    *report.ROUTES,
    *prometheus.ROUTES,
    Route("/healthz", _alive),
    Mount("/static", StaticFiles(directory=STATIC), name="static"),
]
