"""An ASGI application in front of a web page: hosts, origins, login, and headers.

It passes requests and answers on as they come, without keeping bodies in memory.
"""

import math
from collections.abc import Collection, Mapping
from http import HTTPStatus
from urllib.parse import parse_qs, quote

from sqlalchemy import Engine
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from kpi_pipeline.settings import Settings
from kpi_pipeline.settings.pages import Page
from kpi_pipeline.web.access import (
    SESSION_LASTS,
    Access,
    UsersUnreachableError,
    session_cookie,
)
from kpi_pipeline.web.login import TooManyGuessesError, basic_credentials, bearer_token
from kpi_pipeline.web.login_page import CONTENT_SECURITY_POLICY, login_form, logout_form
from kpi_pipeline.web.origins import Rejection, allowed_names, rejected_host, rejected_origin
from kpi_pipeline.web.passwords import API_TOKEN_PREFIX, COMMAND_TOKEN_PREFIX
from kpi_pipeline.web.visitor import LOCAL, Visitor
from kpi_pipeline.web.watched import Watched

_LARGEST_FORM = 8192
_READS = ("GET", "HEAD")
_PEER = "kpi_pipeline.peer"
_LOG_IN = Rejection(401, "Log in first: this page needs a password, or an API token.")
_WRONG = "The name or the password is wrong."
_UNREACHABLE = Rejection(
    503, "Nobody can be let in now, as the database with the users cannot be reached. Try it again."
)
_TOKEN_READS = Rejection(403, "An API token reads, and changes nothing: send GET.")
_TWO_NAMES = Rejection(403, "The proxy names more than one user, so none is believed.")
_UNSTORED = {"Cache-Control": "no-store"}


class Guard:
    """Answers what it does not allow, and hands the rest to `app`, with a Visitor as `user`.

    Without users and without a password in the settings, everybody is a local editor. The login is
    at the page's prefix and /login; the paths of `public` need none. The server must leave the
    headers of proxies to the guard (uvicorn's `proxy_headers=False`, or no allowed address).
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        page: Page,
        engine: Engine,
        public: Collection[str] = (),
    ) -> None:
        self._app = app
        self._names = allowed_names(page.names, page.address)
        self._home = f"{page.path_prefix}/"
        self._login = f"{page.path_prefix}/login"
        self._logout = f"{page.path_prefix}/logout"
        self._public = {f"{page.path_prefix}{path}" for path in public}
        self._user_header = settings.web_user_header
        self._database = engine.url
        self._access = Access(settings, engine, page.address)
        self._behind_proxies = ProxyHeadersMiddleware(
            self._answer,  # type: ignore[arg-type]
            list(settings.web_proxies),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or one WebSocket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        # Noted before the browser's address takes its place.
        scope[_PEER] = scope["client"][0] if scope.get("client") else ""
        await self._behind_proxies(scope, receive, send)  # type: ignore[arg-type]

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        method = scope.get("method", "WEBSOCKET")
        rejection = rejected_host(headers, self._names) or rejected_origin(
            scope["scheme"], method, headers
        )
        answer = deny(scope, rejection) if rejection else await self._admit(scope, receive)
        if answer is None:
            await Watched(self._is_welcome, scope, _with_headers(send)).run(self._app, receive)
        elif scope["type"] == "http":
            await answer(scope, receive, _with_headers(send))
        elif "websocket.http.response" in scope.get("extensions", {}):
            await WebSocket(scope, receive, send).send_denial_response(answer)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": ""})

    async def _admit(self, scope: Scope, receive: Receive) -> Response | None:
        """Set the visitor of the request; the answer instead, if there is none to be let in."""
        if scope["path"] in self._public:
            return None
        try:
            found = await self._find(scope)
            is_form = scope["type"] == "http" and scope["path"] in (self._login, self._logout)
            if is_form and found is not LOCAL and not isinstance(found, Rejection):
                return await self._form(Request(scope, receive), found)
        except UsersUnreachableError:
            return deny(scope, _UNREACHABLE)
        except TooManyGuessesError as error:
            return _too_many(deny(scope, Rejection(429, _wait(error))), error)
        if found is None:
            return self._ask_to_log_in(scope)
        if isinstance(found, Rejection):
            return deny(scope, found)
        scope["user"] = found
        return None

    async def _find(self, scope: Scope) -> Visitor | Rejection | None:
        """Who sends this request, or why nobody is to be let in.

        Raises:
            UsersUnreachableError: if the database does not answer.
            TooManyGuessesError: if too many passwords were wrong.
        """
        connection = HTTPConnection(scope)
        if named := self._named_by_proxy(scope, connection.headers):
            if len(named) > 1:
                return _TWO_NAMES
            return await self._access.by_proxy(named[0]) or _unknown(named[0])
        if not await self._access.needs_login():
            return LOCAL
        authorization = connection.headers.get("authorization", "")
        bearer = bearer_token(authorization) or ""
        if bearer.startswith(API_TOKEN_PREFIX):
            visitor = await self._access.by_api_token(bearer)
            is_read = visitor is None or scope.get("method") in _READS
            return visitor if is_read else _TOKEN_READS
        is_command = bearer.startswith(COMMAND_TOKEN_PREFIX)
        token = bearer if is_command else self._token(connection)
        if visitor := await self._access.by_session(token):
            return visitor
        if credentials := basic_credentials(authorization):
            return await self._access.by_password(*credentials, _address(connection))
        return None

    async def _is_welcome(self, scope: Scope) -> bool:
        """Whether the visitor of a request that was let in would be let in now."""
        try:
            return "user" not in scope or await self._find(scope) == scope["user"]
        except (UsersUnreachableError, TooManyGuessesError):
            # Asked again, they know it.
            return True

    def _named_by_proxy(self, scope: Scope, headers: Headers) -> list[str]:
        """The users that a trusted proxy names."""
        if self._user_header is None or scope[_PEER] not in self._behind_proxies.trusted_hosts:
            return []
        named = [it.strip().lower() for it in headers.getlist(self._user_header)]
        return [it for it in named if it]

    def _token(self, connection: HTTPConnection) -> str:
        cookie = session_cookie(self._database, connection.scope["scheme"])
        return connection.cookies.get(cookie, "")

    def _ask_to_log_in(self, scope: Scope) -> Response:
        """The login for a browser that opens a page, and a sentence for everything else."""
        if scope["type"] == "http" and scope["method"] == "GET" and _wants_html(scope):
            query = scope["query_string"].decode("latin-1")
            then = f"{scope['path']}?{query}" if query else scope["path"]
            return _redirect(f"{self._login}?then={quote(then, safe='')}")
        answer = deny(scope, _LOG_IN)
        # A browser would open a dialog of its own for Basic.
        headers = Headers(scope=scope)
        is_browser = any(it in headers for it in ("sec-fetch-mode", "origin", "referer"))
        answer.headers["WWW-Authenticate"] = "Session" if is_browser else 'Basic realm="KPI"'
        return answer

    async def _form(self, request: Request, visitor: Visitor | None) -> Response:
        """The answer of the login, and of the logout."""
        if request.method == "GET":
            then = self._own_path(request.query_params.get("then", ""))
            if visitor is None:
                return self._login_form(then)
            return _html(logout_form(self._logout, self._home, visitor))
        if request.method != "POST":
            return deny(request.scope, Rejection(405, "The login takes GET and POST."))
        token = self._token(request)
        cookie = session_cookie(self._database, request.scope["scheme"])
        secure = request.scope["scheme"] == "https"
        if request.url.path == self._logout:
            await self._access.log_out(token)
            answer = _redirect(self._login)
            answer.delete_cookie(cookie, path="/", secure=secure, httponly=True, samesite="lax")
            return answer
        form = await _form_of(request)
        if form is None:
            return deny(request.scope, Rejection(400, "Send the form of the login page."))
        then = self._own_path(form.get("then", ""))
        name, password = form.get("name", ""), form.get("password", "")
        try:
            began = await self._access.log_in(name, password, _address(request), token)
        except TooManyGuessesError as error:
            return _too_many(self._login_form(then, name, _wait(error), 429), error)
        if began is None:
            return self._login_form(then, name, _WRONG, 403)
        answer = _redirect(then)
        answer.set_cookie(
            cookie,
            began,
            max_age=int(SESSION_LASTS.total_seconds()),
            # Both pages of a host have one login.
            path="/",
            secure=secure,
            httponly=True,
            # Strict would ask for the password again after each link of an alert.
            samesite="lax",
        )
        return answer

    def _login_form(
        self, then: str, name: str = "", error: str | None = None, status: int = 200
    ) -> Response:
        shared = self._access.has_shared_password
        return _html(login_form(self._login, then, name, error, shared=shared), status)

    def _own_path(self, path: str) -> str:
        """The path, if it leads to this page; else the page's first."""
        own = path.startswith(self._home) and not path.startswith("//")
        plain = path.isprintable() and path.isascii() and "\\" not in path
        return path if own and plain else self._home


def deny(scope: Scope, rejection: Rejection) -> Response:
    """The answer with a rejection's sentence; in the form of GraphQL where no person reads it."""
    if scope["type"] == "http" and _wants_html(scope):
        return PlainTextResponse(rejection.sentence, rejection.status, _UNSTORED)
    content = {"errors": [{"message": rejection.sentence}]}
    return JSONResponse(content, rejection.status, _UNSTORED)


def _unknown(name: str) -> Rejection:
    return Rejection(
        403,
        f"The proxy says that you are {name[:100]!r}, who is no user of these pages. "
        "`kpi users add NAME --role viewer --no-password` adds one.",
    )


def _address(connection: HTTPConnection) -> str:
    return connection.client.host if connection.client else ""


def _wants_html(scope: Scope) -> bool:
    return "text/html" in Headers(scope=scope).get("accept", "")


def _html(content: str, status: int = 200) -> Response:
    headers = {**_UNSTORED, "Content-Security-Policy": CONTENT_SECURITY_POLICY}
    return HTMLResponse(content, status, headers)


def _redirect(path: str) -> Response:
    """Has the browser open a path of this page with GET."""
    return Response(status_code=HTTPStatus.SEE_OTHER, headers={**_UNSTORED, "Location": path})


def _wait(error: TooManyGuessesError) -> str:
    minutes = math.ceil(error.seconds / 60)
    return f"Too many wrong passwords: wait {minutes} min, or restart `kpi up`."


def _too_many(answer: Response, error: TooManyGuessesError) -> Response:
    answer.headers["Retry-After"] = str(math.ceil(error.seconds))
    return answer


async def _form_of(request: Request) -> Mapping[str, str] | None:
    """The fields of a small form; None for anything else."""
    if _media_type(request.headers) != "application/x-www-form-urlencoded":
        return None
    body = b""
    try:
        async for part in request.stream():
            body += part
            if len(body) > _LARGEST_FORM:
                return None
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=10)
    except (ClientDisconnect, ValueError):
        return None
    return {name: values[-1] for name, values in fields.items()}


def _media_type(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _with_headers(send: Send) -> Send:
    """Add what tells a browser to be careful with the answer."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Content-Type-Options"] = "nosniff"
            # Without a referrer, browsers would send no Origin with a form.
            headers["Referrer-Policy"] = "same-origin"
            # Beside the page's own policy, if it has one: both hold.
            if "frame-ancestors" not in headers.get("content-security-policy", ""):
                headers.append("Content-Security-Policy", "frame-ancestors 'none'")
        await send(message)

    return send_with_headers
