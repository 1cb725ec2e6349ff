from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from kpi_pipeline.sandbox.calls import Call
from kpi_pipeline.sandbox.state import sandbox_of


def routes() -> list[BaseRoute]:
    """The log of the calls of the API."""
    return [
        Route("/sandbox/calls", show_calls, methods=["GET"]),
        Route("/sandbox/calls", reset_calls, methods=["DELETE"]),
    ]


async def show_calls(request: Request) -> Response:
    """The calls of the API since the last reset; no key's secret is among them."""
    log = sandbox_of(request).calls
    return JSONResponse({"total": log.total, "calls": [_row(call) for call in log.calls()]})


async def reset_calls(request: Request) -> Response:
    """Begin the log anew."""
    sandbox_of(request).calls.reset()
    return Response(status_code=204)


def _row(call: Call) -> dict[str, object]:
    answered_at = call.answered_at.isoformat() if call.answered_at else None
    return asdict(call) | {"at": call.at.isoformat(), "answered_at": answered_at}
