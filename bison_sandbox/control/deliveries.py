"""Control of events: leads marked on demand, parent hooks, and the logs of calls and deliveries."""

from dataclasses import asdict
from datetime import datetime

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bison_sandbox.calls import Call
from bison_sandbox.control.agency import present_workspace
from bison_sandbox.deliveries import Delivery, shown_url
from bison_sandbox.requests import (
    InvalidError,
    base_url,
    integer_field,
    is_url,
    json_body,
    text_field,
)
from bison_sandbox.state import sandbox_of


def routes() -> list[BaseRoute]:
    """The endpoints of this file."""
    return [
        Route("/sandbox/calls", show_calls, methods=["GET"]),
        Route("/sandbox/calls", reset_calls, methods=["DELETE"]),
        Route("/sandbox/mark-interested", mark_interested, methods=["POST"]),
        Route("/sandbox/parent-hook", add_parent_hook, methods=["POST"]),
        Route("/sandbox/parent-hook", remove_parent_hooks, methods=["DELETE"]),
        Route("/sandbox/deliveries", show_deliveries, methods=["GET"]),
        Route("/sandbox/deliveries", reset_deliveries, methods=["DELETE"]),
    ]


async def show_calls(request: Request) -> Response:
    """The calls of the API since the last reset, without secrets."""
    log = sandbox_of(request).calls
    return JSONResponse({"total": log.total, "calls": [_call_row(call) for call in log.calls()]})


async def reset_calls(request: Request) -> Response:
    """Clear the log."""
    sandbox_of(request).calls.reset()
    return Response(status_code=204)


def _call_row(call: Call) -> dict[str, object]:
    answered_at = call.answered_at.isoformat() if call.answered_at else None
    return asdict(call) | {"at": call.at.isoformat(), "answered_at": answered_at}


_MOST_LEADS = 1_000


async def mark_interested(request: Request) -> Response:
    """Mark `leads` leads of a workspace interested now, and deliver their events; answers 201.

    The answer has the body of each event, its type in upper case. With `deliver` false nothing is
    sent.
    """
    body = {"leads": 1, "deliver": True} | await json_body(request)
    workspace = present_workspace(request, integer_field(body, "workspace_id"))
    leads, deliver = integer_field(body, "leads"), body["deliver"]
    if not 1 <= leads <= _MOST_LEADS:
        raise InvalidError({"leads": [f"The leads field must be between 1 and {_MOST_LEADS}."]})
    if not isinstance(deliver, bool):
        raise InvalidError({"deliver": ["The deliver field must be true or false."]})
    sandbox = sandbox_of(request)
    sandbox.url = base_url(request)
    events = [sandbox.mark_interested(workspace, deliver=deliver) for _ in range(leads)]
    return JSONResponse({"events": events}, 201)


async def add_parent_hook(request: Request) -> Response:
    """Send the events of all workspaces to an address, besides their own webhooks; answers 201."""
    sandbox = sandbox_of(request)
    url = text_field(await json_body(request), "url")
    if not is_url(url):
        raise InvalidError({"url": ["The url field must be a valid URL."]})
    sandbox.url = base_url(request)
    sandbox.parent_hooks[url] = None
    return JSONResponse({"url": shown_url(url)}, 201)


async def remove_parent_hooks(request: Request) -> Response:
    """Remove all parent hooks; pending deliveries to them continue."""
    sandbox_of(request).parent_hooks.clear()
    return Response(status_code=204)


async def show_deliveries(request: Request) -> Response:
    """The deliveries since the last reset, without secrets.

    `?last=N` shows only the last N; the counts are of all.
    """
    log = sandbox_of(request).deliveries.log
    last = request.query_params.get("last", "")
    limit = int(last) if last.isascii() and last.isdigit() and len(last) < 10 else None
    return JSONResponse(
        {
            "pending": log.pending,
            "delivered": log.delivered,
            "given_up": log.given_up,
            "deliveries": [_row(each) for each in log.newest(limit)],
        }
    )


async def reset_deliveries(request: Request) -> Response:
    """Clear the log, except for pending deliveries."""
    sandbox_of(request).deliveries.log.reset()
    return Response(status_code=204)


def _row(delivery: Delivery) -> dict[str, object]:
    return {
        "url": shown_url(delivery.url),
        "event_type": delivery.event_type,
        "workspace_id": delivery.workspace_id,
        "lead_id": delivery.lead_id,
        "marked_at": _iso(delivery.marked_at),
        "first_sent_at": _iso(delivery.first_sent_at),
        "delivered_at": _iso(delivery.delivered_at),
        "tries": delivery.tries,
        "last_status": delivery.last_status,
    }


def _iso(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat()
