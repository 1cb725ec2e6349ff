"""Edit a client's targets from a month on, and take a change back."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from sqlalchemy import Connection
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kpi_pipeline.dashboard.actions.forms import (
    Fields,
    for_editors,
    known_client,
    redirect,
    submitted,
)
from kpi_pipeline.dashboard.formatting import month as month_text
from kpi_pipeline.dashboard.site import Site, site, visitor
from kpi_pipeline.db.registry.clients import Client
from kpi_pipeline.db.registry.clients_csv import read_count
from kpi_pipeline.db.registry.targets import (
    TargetChange,
    Targets,
    count_rows_since,
    next_own_month,
    read_changes,
    set_targets,
    targets_of,
    undo_change,
    why_not_undone,
)
from kpi_pipeline.domain.calendar import first_of_month

_log = logging.getLogger(__name__)

_FIRST_MONTH = date(2000, 1, 1)
# Targets are planned this far ahead.
_AHEAD = timedelta(days=2 * 366)


@dataclass(frozen=True)
class ChangeLine:
    """One change as the page lists it, and whether it can be taken back now."""

    change: TargetChange
    can_be_undone: bool


def parse_targets(fields: Fields, today: date) -> tuple[date, Targets] | dict[str, str]:
    """The month and the targets of the form; or sentences that say what is wrong, by field."""
    errors = {}
    first, last = _FIRST_MONTH, first_of_month(today + _AHEAD)
    month = parse_month(fields.get("month", ""))
    if month is None:
        errors["month"] = "Write the month as YYYY-MM, such as 2026-03."
    elif not first <= month <= last:
        errors["month"] = f"Choose a month from {month_text(first)} to {month_text(last)}."
    counts: dict[str, int | None] = {}
    for name in ("replies", "emails"):
        cell = fields.get(name, "").strip()
        try:
            counts[name] = read_count(cell) if cell else None
        except ValueError as error:
            problem = str(error)
            errors[name] = f"{problem[:1].upper()}{problem[1:]}. Blank means no target."
    if month is None or errors:
        return errors
    return month, Targets(counts["replies"], counts["emails"])


def parse_month(text: str) -> date | None:
    """The first day of a month that is written YYYY-MM; None for anything else."""
    try:
        return date.fromisoformat(f"{text.strip()}-01")
    except ValueError:
        return None


def targets_page(request: Request) -> Response:
    """The targets of a month, a form to change them for editors, and the history of changes."""
    of = site(request)
    with of.engine.connect() as connection:
        client = known_client(connection, request)
        month = parse_month(request.query_params.get("month", "")) or first_of_month(of.today())
        held = targets_of(connection, client.workspace, month)
        fields = {
            "month": f"{month:%Y-%m}",
            "replies": _cell(held.monthly_kpi_target),
            "emails": _cell(held.monthly_sending_target),
        }
        return _form(of, connection, request, client, month, fields, {})


@submitted
def save_targets(request: Request, fields: Fields) -> Response:
    """Set the targets; all rows in which they show follow in the same transaction."""
    of = site(request)
    who = visitor(request).name
    parsed = parse_targets(fields, of.today())
    with of.engine.begin() as connection:
        client = known_client(connection, request)
        if isinstance(parsed, dict):
            month = parse_month(fields.get("month", "")) or first_of_month(of.today())
            return _form(of, connection, request, client, month, fields, parsed, status=422)
        month, targets = parsed
        if not set_targets(
            connection, client.workspace, month, targets, changed_by=who, zone=of.day_zone
        ):
            errors = {"month": f"These targets hold in {month_text(month)} already."}
            return _form(of, connection, request, client, month, fields, errors, status=422)
    _log.info("%s set the targets of %s from %s: %s", who, client.workspace, month, targets)
    return redirect(of, f"/clients/{client.workspace}/targets?month={month:%Y-%m}")


@for_editors
def undo_page(request: Request) -> Response:
    """What taking a change back will do."""
    of = site(request)
    with of.engine.connect() as connection:
        client = known_client(connection, request)
        history = read_changes(connection, client.workspace)
        found = next((it for it in history if it.id == request.path_params["id"]), None)
        if found is None:
            raise HTTPException(404, f"{client.label} has no such change of targets.")
        return of.render(
            request,
            "actions/undo.html",
            client=client,
            change=found,
            problem=why_not_undone(found, history),
            rows=count_rows_since(connection, client.workspace, found.holds_from),
        )


@submitted
def undo(request: Request, _: Fields) -> Response:
    """Take a change back."""
    of = site(request)
    who, change_id = visitor(request).name, request.path_params["id"]
    with of.engine.begin() as connection:
        client = known_client(connection, request)
        change = undo_change(
            connection, client.workspace, change_id, changed_by=who, zone=of.day_zone
        )
    _log.info("%s took back change %s of the targets of %s", who, change_id, client.workspace)
    return redirect(of, f"/clients/{client.workspace}/targets?month={change.holds_from:%Y-%m}")


def _form(
    of: Site,
    connection: Connection,
    request: Request,
    client: Client,
    month: date,
    fields: Mapping[str, str],
    errors: Mapping[str, str],
    *,
    status: int = 200,
) -> Response:
    history = read_changes(connection, client.workspace)
    return of.render(
        request,
        "actions/targets.html",
        status_code=status,
        client=client,
        month=month,
        fields={name: fields.get(name, "") for name in ("month", "replies", "emails")},
        errors=errors,
        held=targets_of(connection, client.workspace, month),
        rows=count_rows_since(connection, client.workspace, month),
        until=next_own_month(connection, client.workspace, month),
        history=_lines(history),
    )


def _lines(history: Sequence[TargetChange]) -> list[ChangeLine]:
    return [ChangeLine(it, why_not_undone(it, history) is None) for it in history]


def _cell(count: int | None) -> str:
    return "" if count is None else f"{count}"


ROUTES = [
    Route("/clients/{workspace}/targets", targets_page, methods=["GET"]),
    Route("/clients/{workspace}/targets", save_targets, methods=["POST"]),
    Route("/clients/{workspace}/targets/{id:int}/undo", undo_page, methods=["GET"]),
    Route("/clients/{workspace}/targets/{id:int}/undo", undo, methods=["POST"]),
]
