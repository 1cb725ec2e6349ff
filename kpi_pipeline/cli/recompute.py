"""`kpi recompute`: stored rows computed again from stored inputs."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Annotated

import typer
from rich.progress import Progress, track

from kpi_pipeline.app import AppContext
from kpi_pipeline.cli.common import FromDate, Workspaces, date_of, err, opened_app, out
from kpi_pipeline.db.registry.clients import all_clients
from kpi_pipeline.db.repair import Repaired, repair_rows
from kpi_pipeline.db.server.retry import retry_on_disconnect
from kpi_pipeline.domain.formatting import counted, listed
from kpi_pipeline.errors import KpiError
from kpi_pipeline.inbox.rezone import adopt_day_zone


def run(
    first: FromDate = None,
    last: Annotated[
        datetime | None,
        typer.Option(
            "--to",
            formats=["%Y-%m-%d"],
            metavar="DATE",
            help="The last date; the later rows in which it shows are included. Unset: all.",
        ),
    ] = None,
    workspace: Workspaces = None,
    adopt_timezone: Annotated[
        bool,
        typer.Option(
            "--adopt-timezone",
            help="Move all stored dates to the zone that the settings name for Email Bison's days, "
            "and compute all rows. Stop `kpi up`, gateways and runs first.",
        ),
    ] = False,
) -> None:
    """Compute stored rows again from stored facts, events and targets; no call to Email Bison.

    Without options: all rows of all clients. Rows that were deleted by hand are made again. It
    repairs what the check rows_match_inputs names, and can run at any time.
    """
    if adopt_timezone:
        if first or last or workspace:
            raise KpiError("--adopt-timezone moves all dates of all clients: give it alone.")
        _adopt_timezone()
        return
    since, until = date_of(first), date_of(last)
    if since and until and since > until:
        raise KpiError(f"--from {since} is after --to {until}.")
    with opened_app() as app:
        names = _known(app, workspace or [])
        found = {
            name: _repaired(app, name, since, until)
            for name in track(names, "Clients", console=err, disable=not err.is_terminal)
        }
    changed = {name: it.changed for name, it in found.items() if it.changed}
    for name, number in changed.items():
        out.print(f"{name}: {counted(number, 'row')} changed", soft_wrap=True)
    rows = counted(sum(it.dates for it in found.values()), "row")
    clients = counted(len(names), "client")
    out.print(f"{sum(changed.values()):,} of {rows} of {clients} changed.", soft_wrap=True)


def _adopt_timezone() -> None:
    with opened_app(any_day_zone=True) as app:
        with Progress(console=err, disable=not err.is_terminal) as progress:
            task = progress.add_task("Clients")
            adopted = adopt_day_zone(
                app.engine,
                app.day_zone,
                lambda done, total: progress.update(task, completed=done, total=total),
            )
        before = f" (before: {adopted.before})" if adopted.before else ""
        out.print(
            f"All stored dates are days of {app.day_zone.key}{before}: "
            f"{counted(adopted.moved, 'event')} moved to another day, and "
            f"{counted(adopted.rows, 'row')} computed again.",
            soft_wrap=True,
        )


def _repaired(app: AppContext, workspace: str, since: date | None, until: date | None) -> Repaired:
    def once() -> Repaired:
        with app.engine.begin() as connection:
            return repair_rows(connection, workspace, since, until, app.day_zone)

    return retry_on_disconnect(once)


def _known(app: AppContext, workspaces: Sequence[str]) -> Sequence[str]:
    """These clients, active or not, or all.

    Raises:
        KpiError: for an unknown client.
    """
    with app.engine.connect() as connection:
        known = [client.workspace for client in all_clients(connection)]
    if unknown := [it for it in workspaces if it not in known]:
        raise KpiError(
            f"There is no client {listed(unknown)}. `kpi clients list` shows the workspaces."
        )
    return list(dict.fromkeys(workspaces)) or known
