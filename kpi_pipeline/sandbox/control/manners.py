from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from kpi_pipeline.sandbox.manners import Manners
from kpi_pipeline.sandbox.requests import json_object
from kpi_pipeline.sandbox.state import sandbox_of


def routes() -> list[BaseRoute]:
    """How the instance answers in general."""
    path = "/sandbox/manners"
    return [
        Route(path, show_manners, methods=["GET"]),
        Route(path, change_manners, methods=["PATCH"]),
        Route(path, reset_manners, methods=["DELETE"]),
    ]


async def show_manners(request: Request) -> Response:
    """All manners, by name."""
    return JSONResponse(asdict(sandbox_of(request).manners))


async def change_manners(request: Request) -> Response:
    """Change the manners that the body names, all of them or none; shows all."""
    sandbox = sandbox_of(request)
    sandbox.manners = sandbox.manners.changed(await json_object(request))
    return await show_manners(request)


async def reset_manners(request: Request) -> Response:
    """Take every manner back to its default; shows all."""
    sandbox_of(request).manners = Manners()
    return await show_manners(request)
