"""Endpoints of events: the feed, the types with their samples, and repeated deliveries."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from bison_sandbox.api.answers import PER_PAGE, answer, cursor_answer, cursor_parts
from bison_sandbox.api.gate import acting_workspace
from bison_sandbox.event_bodies import feed_row, sample_body
from bison_sandbox.requests import (
    ForbiddenError,
    InvalidError,
    NotFoundError,
    base_url,
    date_field,
    is_url,
    json_body,
    text_field,
)
from bison_sandbox.state import Sandbox, sandbox_of
from bison_sandbox.webhooks import EVENT_NAMES
from bison_sandbox.world.events import KEPT, Event
from bison_sandbox.world.made import COUNT_OF_TYPE
from bison_sandbox.world.workspaces import Workspace

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def routes() -> list[BaseRoute]:
    """The endpoints of this file."""
    types = "/api/webhook-events"
    return [
        Route("/api/events", list_events, methods=["GET"]),
        Route(f"{types}/event-types", list_event_types, methods=["GET"]),
        Route(f"{types}/sample-payload", show_sample, methods=["GET"]),
        Route(f"{types}/test-event", send_test_event, methods=["POST"]),
        Route("/api/webhook-attempts/{attempt_id:int}/retry", retry_attempt, methods=["POST"]),
    ]


async def list_events(request: Request) -> Response:
    """The events of the last ten days, newest first, 15 a page whatever `per_page` says.

    `type` in either casing, `start_date` and `end_date`, both inclusive, filter by the recorded
    time; one variant ignores them. A cursor fixes the newest event, so that those that come while a
    caller walks the pages move none of the rows.
    """
    sandbox, workspace = sandbox_of(request), acting_workspace(request)
    if sandbox.variants.event_feed == "missing":
        raise NotFoundError
    sandbox.url = base_url(request)
    now, start = sandbox.clock.now(), 0
    if cursor := request.query_params.get("cursor"):
        instant, place = cursor_parts(request, cursor, 2)
        now, start = _EPOCH + instant * _MICROSECOND, place
    found = _found(request, sandbox, workspace, now, start, start + PER_PAGE + 1)
    events = [build() for build in found]
    casing = str.lower if sandbox.variants.event_casing == "lower" else str.upper
    rows = [_row(sandbox, workspace, event, casing) for event in events[:PER_PAGE]]
    fixed = (now - _EPOCH) // _MICROSECOND
    return cursor_answer(
        request,
        rows,
        following=(fixed, start + PER_PAGE) if len(events) > PER_PAGE else None,
        preceding=(fixed, max(0, start - PER_PAGE)) if start else None,
    )


def _found(
    request: Request, sandbox: Sandbox, workspace: Workspace, now: datetime, start: int, stop: int
) -> list[Callable[[], Event]]:
    asked = request.query_params
    types, since, until = tuple(COUNT_OF_TYPE), now - KEPT, now
    if sandbox.variants.event_feed == "filtered":
        if kind := asked.get("type"):
            types = tuple(each for each in types if each == kind.lower())
        bounds = sandbox.days_of(workspace.profile)
        if (first := date_field(request, "start_date")) is not None:
            since = max(since, bounds.moment(first, 0) - _MICROSECOND)
        if (last := date_field(request, "end_date")) is not None:
            until = min(until, bounds.moment(last + timedelta(days=1), 0) - _MICROSECOND)
    profile = workspace.profile
    key = (since, until, sandbox.variants, sandbox.made.made_in(workspace.id))
    return sandbox.walks[workspace.id, types].part(
        key, lambda: sandbox.events.newest(profile, types, since, until), start, stop
    )


def _row(
    sandbox: Sandbox, workspace: Workspace, event: Event, casing: Callable[[str], str]
) -> dict[str, object]:
    payload = sandbox.body_of(workspace, event)
    payload["event"]["type"] = casing(payload["event"]["type"])
    return feed_row(event, payload)


async def list_event_types(request: Request) -> Response:
    """All event types, with the ids to subscribe with."""
    acting_workspace(request)
    return answer(request, [{"id": key, "name": name} for key, name in EVENT_NAMES.items()])


async def show_sample(request: Request) -> Response:
    """The sample of the type `event_type`, as a test event posts it."""
    acting_workspace(request)
    sandbox = sandbox_of(request)
    kind = _event_type(request.query_params.get("event_type"))
    return answer(request, sample_body(kind, sandbox.variants, base_url(request)))


async def send_test_event(request: Request) -> Response:
    """Post the sample of a type to an address, whatever webhooks there are."""
    sandbox, workspace = sandbox_of(request), acting_workspace(request)
    body = await json_body(request)
    kind = _event_type(body.get("event_type"))
    url = text_field(body, "url")
    if not is_url(url):
        raise InvalidError({"url": ["The url field must be a valid URL."]})
    sample = sample_body(kind, sandbox.variants, base_url(request))
    sandbox.deliveries.send(url, sample, sent_by=workspace.id)
    return answer(request, {"success": True, "message": "Test event sent."})


async def retry_attempt(request: Request) -> Response:
    """Send a delivery of the workspace once more; `/sandbox/deliveries` shows the ids."""
    sandbox, workspace = sandbox_of(request), acting_workspace(request)
    delivery = sandbox.deliveries.log.ended(request.path_params["attempt_id"])
    if delivery is None:
        raise NotFoundError
    if delivery.sent_by != workspace.id:
        raise ForbiddenError
    sandbox.deliveries.retry(delivery)
    return answer(request, {"success": True, "message": "The webhook is sent again."})


def _event_type(value: object) -> str:
    if value is None or value == "":
        raise InvalidError({"event_type": ["The event type field is required."]})
    if not isinstance(value, str) or value not in EVENT_NAMES:
        raise InvalidError({"event_type": ["The selected event type is invalid."]})
    return value
