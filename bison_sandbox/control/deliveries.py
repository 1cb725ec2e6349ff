"""Control of events: those made on demand, parent hooks, and the logs of calls and deliveries."""

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
    period,
    text_field,
)
from bison_sandbox.state import sandbox_of
from bison_sandbox.webhooks import are_types
from bison_sandbox.world.made import COUNT_OF_TYPE
from bison_sandbox.world.numbers import total


def routes() -> list[BaseRoute]:
    """The endpoints of this file."""
    return [
        Route("/sandbox/calls", show_calls, methods=["GET"]),
        Route("/sandbox/calls", reset_calls, methods=["DELETE"]),
        Route("/sandbox/mark-interested", mark_interested, methods=["POST"]),
        Route("/sandbox/events", make_events, methods=["POST"]),
        Route("/sandbox/counts", show_counts, methods=["GET"]),
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


_MOST_EVENTS = 1_000


async def mark_interested(request: Request) -> Response:
    """Mark `leads` leads of a workspace interested now, and deliver their events; answers 201.

    The answer has the body of each event, its type in upper case. With `deliver` false nothing is
    sent.
    """
    body = await json_body(request)
    return await _make(request, body | {"type": "lead_interested"}, "leads")


async def make_events(request: Request) -> Response:
    """Let `events` events of a counted `type` happen now in a workspace, as `mark-interested`."""
    body = await json_body(request)
    return await _make(request, body, "events")


async def _make(request: Request, asked: dict[str, object], number: str) -> Response:
    body = {number: 1, "deliver": True} | asked
    workspace = present_workspace(request, integer_field(body, "workspace_id"))
    count, deliver, kind = integer_field(body, number), body["deliver"], text_field(body, "type")
    if kind not in COUNT_OF_TYPE:
        sentence = f"The selected type is invalid. Allowed are {', '.join(COUNT_OF_TYPE)}."
        raise InvalidError({"type": [sentence]})
    if not 1 <= count <= _MOST_EVENTS:
        sentence = f"The {number} field must be between 1 and {_MOST_EVENTS}."
        raise InvalidError({number: [sentence]})
    if not isinstance(deliver, bool):
        raise InvalidError({"deliver": ["The deliver field must be true or false."]})
    sandbox = sandbox_of(request)
    sandbox.url = base_url(request)
    events = [sandbox.make_event(workspace, kind, deliver=deliver) for _ in range(count)]
    return JSONResponse({"events": events}, 201)


async def show_counts(request: Request) -> Response:
    """The counts of a workspace and period in one object, whatever form the API's answers have.

    `people_replied` is how many people wrote the `replied` mails.
    """
    asked = request.query_params.get("workspace_id", "")
    number = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 18 else 0
    workspace, sandbox = present_workspace(request, number), sandbox_of(request)
    first, last = period(request)
    counts = total(sandbox.series(workspace, first, last))._asdict()
    people = sandbox.replies.people(workspace.profile, first, last, sandbox.clock.now())
    return JSONResponse(counts | {"people_replied": people})


def _types(value: object) -> tuple[str, ...]:
    if not are_types(value):
        raise InvalidError({"events": ["The selected events are invalid."]})
    return tuple(value)


async def add_parent_hook(request: Request) -> Response:
    """Send the events of all workspaces to an address, besides their own webhooks; answers 201.

    `events` names the types; without it, they are interested leads alone.
    """
    sandbox = sandbox_of(request)
    body = await json_body(request)
    url = text_field(body, "url")
    if not is_url(url):
        raise InvalidError({"url": ["The url field must be a valid URL."]})
    sandbox.url = base_url(request)
    sandbox.webhook_urls.add_parent(url, _types(body.get("events", ["lead_interested"])))
    return JSONResponse({"url": shown_url(url)}, 201)


async def remove_parent_hooks(request: Request) -> Response:
    """Remove all parent hooks; pending deliveries to them continue."""
    sandbox_of(request).webhook_urls.remove_parents()
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
        "id": delivery.id,
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
