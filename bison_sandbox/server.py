"""The sandbox as an ASGI application, and as an HTTP server that runs until a signal."""

import errno
import logging
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import TextIO

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from bison_sandbox import api, control
from bison_sandbox.api.faulty import Faulty
from bison_sandbox.api.gate import Gate
from bison_sandbox.control.guide import guide
from bison_sandbox.options import SandboxError, SandboxOptions
from bison_sandbox.requests import ApiError, answer_api_error, answer_http_error
from bison_sandbox.state import Sandbox


def create_app(options: SandboxOptions) -> Starlette:
    """A local Email Bison as an ASGI application, with a fresh agency of its own.

    During its lifespan a live sandbox lets things happen; deliveries that are pending at its end
    are lost.

    Raises SandboxError for a fault that names a workspace that does not exist.
    """
    sandbox = Sandbox(options)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        sandbox.start()
        try:
            yield
        finally:
            await sandbox.stop()

    app = Starlette(
        routes=[*api.routes(), *control.routes()],
        middleware=[
            Middleware(control.LoopbackOnly),
            Middleware(Gate, sandbox),
            Middleware(Faulty, sandbox),
        ],
        lifespan=lifespan,
        exception_handlers={ApiError: answer_api_error, HTTPException: answer_http_error},
    )
    app.router.redirect_slashes = False
    app.state.sandbox = sandbox
    return app


def serve(options: SandboxOptions) -> None:
    """Serve until SIGINT or SIGTERM; print the address and how to use it once it listens.

    Raises SandboxError if the address can't be used, or for a fault without a workspace.
    """
    with _listening_socket(options) as listener:
        port = listener.getsockname()[1]
        host = f"[{options.host}]" if ":" in options.host else options.host
        app = create_app(options)
        app.state.sandbox.url = f"http://{host}:{port}"
        config = uvicorn.Config(
            app,
            lifespan="on",
            ws="none",
            log_level="error",
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        url = app.state.sandbox.url
        line = f"Sandbox Email Bison at {url} ({options.clients} workspaces)"
        # A file is a log, and no log holds a key.
        is_log = _is_file(sys.stdout)
        text = f"{url}/ says how to use it." if is_log else f"\n{guide(app.state.sandbox, url)}"
        server = _Server(config, f"{line}\n{text}")
        with _stopping_on_signals(server):
            server.run(sockets=[listener])


def _is_file(stream: TextIO) -> bool:
    """Whether what is written goes to a regular file, not to a screen or another program."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, text: str) -> None:
        super().__init__(config)
        self._text = text

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(self._text, end="", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Calls that still wait are cut off, and uvicorn would log an error for each of them.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
        super().handle_exit(sig, frame)


@contextmanager
def _stopping_on_signals(server: _Server) -> Generator[None]:
    """Keep uvicorn from ending the process with the signal that stopped it.

    It raises the signal again for the handler that was there before; this one ignores it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_sig: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listening_socket(options: SandboxOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SandboxError(
                f"Port {options.port} of {options.host} is already in use: stop the program that "
                "holds it, or start the sandbox on another port (0 takes any free one)."
            ) from error
        reason = (error.strerror or str(error)).partition(" (")[0]
        raise SandboxError(
            f"The sandbox can't listen on port {options.port} of {options.host} ({reason}): choose "
            "another host or port."
        ) from error
