"""Mute a check for a client, and activate or deactivate a client."""

import logging
from datetime import date, timedelta

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kpi_pipeline.checks.outcome import Check
from kpi_pipeline.dashboard.actions.forms import (
    Fields,
    for_editors,
    known_client,
    redirect,
    submitted,
)
from kpi_pipeline.dashboard.site import site, visitor
from kpi_pipeline.db.alerts import SYNC, client_mutes, mute, mute_name, read_mutes, unmute
from kpi_pipeline.db.dashboard.problems import read_problems
from kpi_pipeline.db.dashboard.requests import Kind, request_run
from kpi_pipeline.db.registry.clients import set_active
from kpi_pipeline.db.registry.targets import count_rows_since

_log = logging.getLogger(__name__)

_MOST_HOURS = 14 * 24
SPANS = {1: "1 hour", 4: "4 hours", 24: "1 day", 48: "2 days", 168: "1 week", 336: "2 weeks"}
_DEFAULT_HOURS = 48
# These concern the installation, and name no client.
_OF_NO_CLIENT = {Check.AUTOMATION_ALIVE, Check.BISON_DAYS_MEASURED}
MUTABLE = {
    **{it.value: f"the check {it.value}" for it in Check if it not in _OF_NO_CLIENT},
    SYNC: "that its sync fails",
}


@for_editors
def mute_page(request: Request) -> Response:
    """The checks that can be muted, and those that are."""
    of = site(request)
    now = of.now()
    with of.engine.connect() as connection:
        client = known_client(connection, request)
        muted = client_mutes(connection, client.workspace, now)
        whole = read_mutes(connection, now).get(client.workspace)
        problems = read_problems(connection).get(client.workspace, [])
    chosen = request.query_params.get("check")
    if chosen not in MUTABLE:
        chosen = problems[0].check if problems else Check.PLAUSIBLE.value
    return of.render(
        request,
        "actions/mute.html",
        client=client,
        choices=MUTABLE,
        spans=SPANS,
        chosen=chosen,
        hours=_DEFAULT_HOURS,
        muted=muted,
        whole=whole,
        failing={it.check: it.text for it in problems},
    )


@submitted
def mute_check(request: Request, fields: Fields) -> Response:
    """Mute a check for a client, for a time."""
    of = site(request)
    name, hours = _check(fields), fields.get("hours", "")
    if not (hours.isascii() and hours.isdigit() and 1 <= int(hours) <= _MOST_HOURS):
        raise HTTPException(422, f"Mute it for 1 to {_MOST_HOURS} hours.")
    now = of.now()
    until = now + timedelta(hours=int(hours))
    with of.engine.begin() as connection:
        client = known_client(connection, request)
        mute(connection, mute_name(client.workspace, name), until, now)
    _log.info("%s muted %s for %s until %s", visitor(request).name, name, client.workspace, until)
    return redirect(of, f"/clients/{client.workspace}/mute?check={name}")


@for_editors
def unmute_page(request: Request) -> Response:
    """What the end of a mute will do."""
    of = site(request)
    name = _check(request.query_params)
    with of.engine.connect() as connection:
        client = known_client(connection, request)
        made = client_mutes(connection, client.workspace, of.now()).get(name)
    return of.render(
        request, "actions/unmute.html", client=client, name=name, what=MUTABLE[name], made=made
    )


@submitted
def unmute_check(request: Request, fields: Fields) -> Response:
    """End a mute."""
    of = site(request)
    name = _check(fields)
    with of.engine.begin() as connection:
        client = known_client(connection, request)
        unmute(connection, mute_name(client.workspace, name), of.now())
    _log.info("%s ended the mute of %s for %s", visitor(request).name, name, client.workspace)
    return redirect(of, f"/clients/{client.workspace}/mute?check={name}")


@for_editors
def activity_page(request: Request) -> Response:
    """What deactivating, or activating again, will do."""
    of = site(request)
    with of.engine.connect() as connection:
        client = known_client(connection, request)
        rows = count_rows_since(connection, client.workspace, date.min)
    return of.render(
        request,
        "actions/activity.html",
        client=client,
        rows=rows,
        activates=_activates(request),
    )


@submitted
def change_activity(request: Request, _: Fields) -> Response:
    """Deactivate a client, or activate it again, which also fetches yesterday and today."""
    of = site(request)
    who, activates = visitor(request).name, _activates(request)
    path = "/clients/{}"
    with of.engine.begin() as connection:
        client = known_client(connection, request)
        changed = set_active(connection, client.workspace, active=activates)
        if changed and activates:
            # Its partition may be gone: the sensor adds it with the run.
            request_id, _is_new = request_run(
                connection,
                Kind.REFRESH,
                [client.workspace],
                of.today() - timedelta(days=1),
                of.today(),
                requested_by=who,
                now=of.now(),
            )
            path = f"/requests/{request_id}"
    _log.info("%s %s %s", who, "activated" if activates else "deactivated", client.workspace)
    return redirect(of, path.format(client.workspace))


def _check(fields: Fields) -> str:
    name = fields.get("check", "")
    if name not in MUTABLE:
        raise HTTPException(422, "Choose one of the checks on the page.")
    return name


def _activates(request: Request) -> bool:
    return request.url.path.endswith("/reactivate")


ROUTES = [
    Route("/clients/{workspace}/mute", mute_page, methods=["GET"]),
    Route("/clients/{workspace}/mute", mute_check, methods=["POST"]),
    Route("/clients/{workspace}/unmute", unmute_page, methods=["GET"]),
    Route("/clients/{workspace}/unmute", unmute_check, methods=["POST"]),
    *(
        Route(f"/clients/{{workspace}}/{verb}", handler, methods=[method])
        for verb in ("deactivate", "reactivate")
        for method, handler in (("GET", activity_page), ("POST", change_activity))
    ),
]
