"""Refresh clients, fill a gap, and see how far that is. A sensor of Dagster's starts the runs."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from sqlalchemy import Connection
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
from kpi_pipeline.dashboard.actions.wording import (
    MOST_DAYS,
    Effect,
    checked_period,
    effect_of,
    gap_of,
    state_of,
    title_of,
)
from kpi_pipeline.dashboard.formatting import visible
from kpi_pipeline.dashboard.site import Site, site, visitor
from kpi_pipeline.db.check_results import failing_checks
from kpi_pipeline.db.dashboard.problems import read_problems
from kpi_pipeline.db.dashboard.requests import (
    ActionRequest,
    Kind,
    Progress,
    latest_requests,
    open_requests,
    progress_of,
    read_request,
    request_run,
)
from kpi_pipeline.db.registry.clients import Client, active_clients, all_clients
from kpi_pipeline.domain.calendar import first_grid_date, first_of_month

_log = logging.getLogger(__name__)

_ONE_DAY = timedelta(days=1)
_GAP_CHECKS = (Check.COMPLETE, Check.NO_MISSING_DAYS, Check.FRESHNESS)
_LISTED = 20
# Beyond all ids that a column holds.
_NO_ID = 2**63


@for_editors
def refresh_page(request: Request) -> Response:
    """What a refresh of one client, or of all, will do."""
    of = site(request)
    with of.engine.connect() as connection:
        clients = _to_refresh(connection, request)
        under_way = _open_for(connection, Kind.REFRESH, clients)
    first, last = _latest_days(of)
    alone = clients[0] if "workspace" in request.path_params else None
    return of.render(
        request,
        "actions/refresh.html",
        client=alone,
        number=len(clients),
        effect=_effect(of, clients, first, last),
        under_way=under_way,
        back=f"/clients/{alone.workspace}" if alone else "/",
    )


@submitted
def refresh(request: Request, _: Fields) -> Response:
    """Ask for yesterday and today of one client, or of all."""
    of = site(request)
    first, last = _latest_days(of)
    with of.engine.begin() as connection:
        clients = _to_refresh(connection, request)
        request_id = _ask(of, connection, request, Kind.REFRESH, clients, first, last)
    return redirect(of, f"/requests/{request_id}")


@for_editors
def fill_page(request: Request) -> Response:
    """What filling a gap will do: by default the one that the checks name."""
    of = site(request)
    with of.engine.connect() as connection:
        client = known_client(connection, request, active=True)
        gap = _gap(of, connection, client.workspace)
        query = request.query_params
        default = gap or (of.today() - 6 * _ONE_DAY, of.today())
        first = query.get("from", f"{default[0]}")
        last = query.get("to", f"{default[1]}")
        return _fill_form(of, connection, request, client, first, last, named=gap is not None)


@submitted
def fill(request: Request, fields: Fields) -> Response:
    """Ask for days of one client."""
    of = site(request)
    first, last = fields.get("from", ""), fields.get("to", "")
    with of.engine.begin() as connection:
        client = known_client(connection, request, active=True)
        days = checked_period(first, last, _start(of), of.today())
        if isinstance(days, str):
            return _fill_form(of, connection, request, client, first, last, status=422)
        request_id = _ask(of, connection, request, Kind.FILL, [client], *days)
    return redirect(of, f"/requests/{request_id}")


def requests_page(request: Request) -> Response:
    """The last requests."""
    of = site(request)
    with of.engine.connect() as connection:
        found = progress_of(connection, latest_requests(connection, _LISTED))
        labels = {it.workspace: it.label for it in all_clients(connection)}
    return of.render(request, "actions/requests.html", lines=_lines(of, found, labels))


def progress_strip(request: Request) -> Response:
    """The strip that says on other pages what is under way."""
    of = site(request)
    with of.engine.connect() as connection:
        requests = open_requests(connection)
        found = progress_of(connection, requests)
        labels = {it.workspace: it.label for it in all_clients(connection)} if requests else {}
    return of.render(request, "actions/_progress.html", progress=_lines(of, found, labels))


def request_page(request: Request) -> Response:
    """How far one request is."""
    of = site(request)
    request_id = request.path_params["id"]
    with of.engine.connect() as connection:
        found = read_request(connection, request_id) if request_id < _NO_ID else None
        if found is None:
            raise HTTPException(404, f"There is no request {request_id}.")
        (progress,) = progress_of(connection, [found])
        labels = {it.workspace: it.label for it in all_clients(connection)}
    (line,) = _lines(of, [progress], labels)
    return of.render(request, "actions/request.html", line=line)


@dataclass(frozen=True)
class Line:
    """A request as pages show it. `errors` are sentences by the label of a client."""

    progress: Progress
    title: str
    state: str
    errors: Mapping[str, str]
    run_url: str | None

    @property
    def request(self) -> ActionRequest:
        """The request."""
        return self.progress.request

    @property
    def back(self) -> str:
        """The path on which one sees the result."""
        alone = len(self.request.workspaces) == 1
        return f"/clients/{self.request.workspaces[0]}" if alone else "/"


def _lines(of: Site, found: Sequence[Progress], labels: Mapping[str, str]) -> list[Line]:
    now = of.now()
    return [
        Line(
            it,
            title_of(it.request, labels),
            state_of(it, now),
            {
                visible(labels.get(workspace, workspace)): error.removeprefix(f"{workspace}: ")
                for workspace, error in it.errors.items()
            },
            f"{of.settings.page_url}/runs/{it.request.run_id}" if it.request.run_id else None,
        )
        for it in found
    ]


def _to_refresh(connection: Connection, request: Request) -> list[Client]:
    """The client of the path, or all active ones."""
    if "workspace" in request.path_params:
        return [known_client(connection, request, active=True)]
    clients = active_clients(connection)
    if not clients:
        raise HTTPException(409, "There are no active clients: `kpi clients import` adds them.")
    return clients


def _ask(
    of: Site,
    connection: Connection,
    request: Request,
    kind: Kind,
    clients: Sequence[Client],
    first: date,
    last: date,
) -> int:
    who = visitor(request).name
    workspaces = [it.workspace for it in clients]
    request_id, is_new = request_run(
        connection, kind, workspaces, first, last, requested_by=who, now=of.now()
    )
    if is_new:
        _log.info("%s asked for a %s of %s: %s to %s", who, kind, workspaces, first, last)
    return request_id


def _open_for(
    connection: Connection, kind: Kind, clients: Sequence[Client]
) -> ActionRequest | None:
    named = sorted(it.workspace for it in clients)
    found = open_requests(connection)
    return next((it for it in found if it.kind is kind and list(it.workspaces) == named), None)


def _fill_form(
    of: Site,
    connection: Connection,
    request: Request,
    client: Client,
    first: str,
    last: str,
    *,
    named: bool = False,
    status: int = 200,
) -> Response:
    days = checked_period(first, last, _start(of), of.today())
    problems = read_problems(connection).get(client.workspace, [])
    return of.render(
        request,
        "actions/fill.html",
        status_code=status,
        client=client,
        first=first,
        last=last,
        error=days if isinstance(days, str) else None,
        effect=None if isinstance(days, str) else _effect(of, [client], *days),
        problems=[it for it in problems if it.check in _GAP_CHECKS],
        named=named,
        start=_start(of),
        today=of.today(),
        most_days=MOST_DAYS,
        under_way=_open_for(connection, Kind.FILL, [client]),
    )


def _effect(of: Site, clients: Sequence[Client], first: date, last: date) -> Effect:
    most = of.settings.series_max_days
    return effect_of(clients, first, last, today=of.today(), series_max_days=most)


def _gap(of: Site, connection: Connection, workspace: str) -> tuple[date, date] | None:
    """The gap that the checks name, within what can be filled at once."""
    checks = [it for it in failing_checks(connection) if it.name in _GAP_CHECKS]
    gap = gap_of({it.name: it.offenders for it in checks}, workspace)
    today, start = of.today(), _start(of)
    if gap is None:
        empty = any(workspace in it.clients and it.name != Check.FRESHNESS for it in checks)
        gap = (first_of_month(today), today) if empty else None
    if gap is None:
        return None
    last = min(gap[1], today)
    first = max(gap[0], start, last - (MOST_DAYS - 1) * _ONE_DAY)
    return (first, last) if first <= last else None


def _start(of: Site) -> date:
    return first_grid_date(of.settings.first_date, of.today())


def _latest_days(of: Site) -> tuple[date, date]:
    return of.today() - _ONE_DAY, of.today()


ROUTES = [
    Route("/refresh", refresh_page, methods=["GET"]),
    Route("/refresh", refresh, methods=["POST"]),
    Route("/clients/{workspace}/refresh", refresh_page, methods=["GET"]),
    Route("/clients/{workspace}/refresh", refresh, methods=["POST"]),
    Route("/clients/{workspace}/fill", fill_page, methods=["GET"]),
    Route("/clients/{workspace}/fill", fill, methods=["POST"]),
    Route("/requests", requests_page),
    Route("/requests/strip", progress_strip),
    Route("/requests/{id:int}", request_page),
]
