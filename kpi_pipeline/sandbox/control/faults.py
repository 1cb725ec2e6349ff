from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from kpi_pipeline.sandbox.errors import NotFoundError
from kpi_pipeline.sandbox.fault_kinds import fault_from
from kpi_pipeline.sandbox.requests import json_object
from kpi_pipeline.sandbox.state import sandbox_of


def routes() -> list[BaseRoute]:
    """What goes wrong with certain calls."""
    path = "/sandbox/faults"
    return [
        Route(path, show_faults, methods=["GET"]),
        Route(path, add_fault, methods=["POST"]),
        Route(path, remove_faults, methods=["DELETE"]),
        Route(f"{path}/{{fault_id:int}}", remove_fault, methods=["DELETE"]),
    ]


async def show_faults(request: Request) -> Response:
    """The faults in force, as they were given, and how often each has struck."""
    faults = [
        {"id": standing.id, **standing.fault.told(), "struck": standing.struck}
        for standing in sandbox_of(request).faults.all()
    ]
    return JSONResponse({"faults": faults})


async def add_fault(request: Request) -> Response:
    """Put a fault in force; answers 201."""
    standing = sandbox_of(request).add_fault(fault_from(await json_object(request)))
    return JSONResponse({"id": standing.id}, 201)


async def remove_fault(request: Request) -> Response:
    """Take one fault out of force."""
    if not sandbox_of(request).faults.remove(request.path_params["fault_id"]):
        raise NotFoundError
    return Response(status_code=204)


async def remove_faults(request: Request) -> Response:
    """Take all faults out of force."""
    sandbox_of(request).faults.clear()
    return Response(status_code=204)
