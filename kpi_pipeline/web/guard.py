"""An ASGI application in front of a web page: hosts, origins, login, and headers.

It passes requests and answers on as they come, without keeping bodies in memory.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote

from pydantic import SecretStr
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from kpi_pipeline.settings import Settings
from kpi_pipeline.web.login import Passwords, TooManyGuessesError, basic_password
from kpi_pipeline.web.login_page import CONTENT_SECURITY_POLICY, login_form, logout_form
from kpi_pipeline.web.origins import Rejection, allowed_names, rejected_host, rejected_origin
from kpi_pipeline.web.visitor import LOCAL, Role, Visitor

if TYPE_CHECKING:
    from kpi_pipeline.web.sessions import Sessions

SESSION_SECONDS = 14 * 24 * 3600
_LARGEST_FORM = 8192
_LOG_IN = "Log in first: this page needs a password (KPI_WEB_PASSWORD)."
_WRONG = "This password is wrong."


class Guard:
    """Answers what it does not allow, and hands the rest to `app`, with a Visitor as `user`.

    `prefix` is the path under which the page is published, such as /dagster, or empty. Without a
    password in the settings, everybody is an editor. The login is at `prefix`/login.
    """

    def __init__(self, app: ASGIApp, settings: Settings, prefix: str) -> None:
        self._app = app
        self._names = allowed_names(settings.web_names, settings.web_address)
        self._home = f"{prefix}/"
        self._login, self._logout = f"{prefix}/login", f"{prefix}/logout"
        roles = _passwords(settings)
        self._passwords = Passwords(roles) if roles else None
        self._sessions = _sessions(settings, list(roles.values())) if roles else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or one WebSocket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        method = scope.get("method", "WEBSOCKET")
        rejection = rejected_host(headers, self._names) or rejected_origin(
            scope["scheme"], method, headers
        )
        answer = deny(scope, rejection) if rejection else await self._identified(scope, receive)
        if answer is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "http":
            await answer(scope, receive, _with_headers(send))
        elif "websocket.http.response" in scope.get("extensions", {}):
            await WebSocket(scope, receive, send).send_denial_response(answer)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": ""})

    async def _identified(self, scope: Scope, receive: Receive) -> Response | None:
        """Set the role of the request; the answer instead, if it is for the login or has none."""
        if self._passwords is None or self._sessions is None:
            scope["user"] = LOCAL
            return None
        connection = HTTPConnection(scope)
        address = connection.client.host if connection.client else ""
        token = connection.cookies.get(self._sessions.cookie, "")
        role = _role(self._sessions.role(token))
        if scope["type"] == "http" and scope["path"] in (self._login, self._logout):
            return await self._form(Request(scope, receive), token, role, address)
        password = basic_password(connection.headers.get("authorization", ""))
        if role is None and password is not None:
            try:
                role = self._passwords.role(password, address)
            except TooManyGuessesError as error:
                return _too_many(deny(scope, Rejection(429, _wait(error))), error)
        if role is not None:
            scope["user"] = _visitor(role, token)
            return None
        return self._ask_to_log_in(scope, connection)

    def _ask_to_log_in(self, scope: Scope, connection: HTTPConnection) -> Response:
        """The login for a browser that opens a page, and a sentence for everything else."""
        if scope["type"] == "http" and scope["method"] == "GET" and _wants_html(scope):
            query = scope["query_string"].decode("latin-1")
            then = f"{scope['path']}?{query}" if query else scope["path"]
            return _redirect(f"{self._login}?then={quote(then, safe='')}")
        answer = deny(scope, Rejection(401, _LOG_IN))
        # A browser would open a dialog of its own for Basic.
        is_browser = any(it in connection.headers for it in ("sec-fetch-mode", "origin", "referer"))
        answer.headers["WWW-Authenticate"] = "Session" if is_browser else 'Basic realm="KPI"'
        return answer

    async def _form(
        self, request: Request, token: str, role: Role | None, address: str
    ) -> Response:
        assert self._passwords is not None  # noqa: S101 - for the type checker
        assert self._sessions is not None  # noqa: S101
        if request.method == "GET":
            then = self._own_path(request.query_params.get("then", ""))
            if role is None:
                return _html(login_form(self._login, then, None))
            return _html(logout_form(self._logout, self._home, _visitor(role, token).name))
        if request.method != "POST":
            return deny(request.scope, Rejection(405, "The login takes GET and POST."))
        if request.url.path == self._logout:
            self._sessions.end(token)
            answer = _redirect(self._login)
            answer.delete_cookie(self._sessions.cookie, path=self._home)
            return answer
        form = await _form_of(request)
        if form is None:
            return deny(request.scope, Rejection(400, "Send the form of the login page."))
        then = self._own_path(form.get("then", ""))
        try:
            found = self._passwords.role(form.get("password", ""), address)
        except TooManyGuessesError as error:
            return _too_many(_html(login_form(self._login, then, _wait(error)), 429), error)
        if found is None:
            return _html(login_form(self._login, then, _WRONG), 403)
        answer = _redirect(then)
        answer.set_cookie(
            self._sessions.cookie,
            self._sessions.begin(found),
            max_age=SESSION_SECONDS,
            path=self._home,
            secure=request.scope["scheme"] == "https",
            httponly=True,
            # Strict would ask for the password again after each link of an alert.
            samesite="lax",
        )
        return answer

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


_UNSTORED = {"Cache-Control": "no-store"}


def _passwords(settings: Settings) -> Mapping[Role, SecretStr]:
    """The password of each role that has one."""
    all_roles = {Role.EDITOR: settings.web_password, Role.VIEWER: settings.web_reader_password}
    return {role: it for role, it in all_roles.items() if it is not None}


def _sessions(settings: Settings, passwords: Sequence[SecretStr]) -> "Sessions":
    # Imported late, as the encryption takes memory: a page without a password needs none.
    from kpi_pipeline.web.sessions import Sessions

    return Sessions(settings.state_dir, passwords, SESSION_SECONDS)


def _visitor(role: Role, token: str) -> Visitor:
    name = "operator" if role is Role.EDITOR else "reader"
    return Visitor(name, role, hashlib.sha256(token.encode()).hexdigest())


def _role(text: str | None) -> Role | None:
    return Role(text) if text in set(Role) else None


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
