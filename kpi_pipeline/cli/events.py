"""`kpi events`: the events received from Email Bison and their outcome, without personal data."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from kpi_pipeline.app import AppContext
from kpi_pipeline.cli.common import Workspaces, cell, local_time, opened_app, out, print_whole
from kpi_pipeline.db.events.stored import StoredEvent, read_newest
from kpi_pipeline.db.registry.clients import pick_clients
from kpi_pipeline.domain.events.event import EventStatus
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.errors import KpiError
from kpi_pipeline.inbox.ingest import inbox_of

commands = typer.Typer(
    help="Events of Email Bison: list, replay and recover them, ingest them from files.",
    no_args_is_help=True,
)

Statuses = Annotated[
    list[EventStatus] | None, typer.Option("--status", help="Only these; may be repeated.")
]
Since = Annotated[
    datetime | None,
    typer.Option(
        formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"],
        metavar="DATE[THH:MM]",
        help="Only those received then or later, in KPI_TIMEZONE.",
    ),
]


@commands.command("list")
def list_events(
    status: Statuses = None,
    workspace: Workspaces = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 50,
) -> None:
    """Show the newest events: what they are, for whom they count, and why one does not."""
    with opened_app() as app, app.engine.connect() as connection:
        total, events = read_newest(
            connection,
            limit,
            since=_instant(app, since),
            workspaces=_known(app, workspace),
            statuses=status or (),
        )
    table = Table("Id", "Received", "Type", "Client", "Counts on", "Status", "Tries", "Reason")
    for event in events:
        table.add_row(*_cells(event, app))
    print_whole(table, out)
    out.print(f"{len(events)} of {counted(total, 'event')}")


@commands.command("replay")
def replay_events(
    since: Since = None, workspace: Workspaces = None, status: Statuses = None
) -> None:
    """Read stored events again and recompute their clients' rows. Repeating it changes nothing.

    Without --status: all events that do not count yet, set_aside and invalid ones included.
    """
    from kpi_pipeline.inbox.replay import NOT_COUNTED_YET, replay

    with opened_app() as app:
        report = replay(
            inbox_of(app, realtime=True),
            since=_instant(app, since),
            workspaces=_known(app, workspace),
            statuses=status or NOT_COUNTED_YET,
        )
    out.print(f"{report.applied} of {counted(report.events, 'event')} applied.")
    if report.left:
        out.print(f"Not applied: {report.left}; `kpi events list` says why.")


@commands.command("ingest")
def ingest(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="JSON, or JSON Lines.")],
    instance: Annotated[
        str | None, typer.Option(metavar="NAME", help="The instance that the events come from.")
    ] = None,
) -> None:
    """Ingest events from files as from webhooks; fails if a record is rejected.

    The files stay where they are. An event that was ingested before does not count twice.
    """
    from kpi_pipeline.inbox.records import UnfinishedFileError, ingest_file

    events, rejected = 0, []
    with opened_app() as app:
        if instance is not None:
            app.instance(instance)
        for path in files:
            try:
                age = time.time() - path.stat().st_mtime
                outcome = ingest_file(inbox_of(app, realtime=True), path, instance, age)
            except UnfinishedFileError:
                raise KpiError(
                    f"{path} ends in the middle of a record, and was changed a moment ago: nothing "
                    "of it was ingested. Try again when it is complete."
                ) from None
            except OSError as error:
                raise KpiError(f"{path} cannot be read: {error.strerror or error}.") from None
            events += outcome.events
            rejected += [f"{path.name}, {it.place}: {it.reason}" for it in outcome.rejected]
    stored = f"{counted(events, 'event')} stored"
    out.print(f"{stored}, {counted(len(rejected), 'record')} rejected.")
    if rejected:
        raise KpiError("Rejected:\n" + "\n".join(rejected))


@commands.command("recover")
def recover_events(
    since: Annotated[
        datetime,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"],
            metavar="DATE[THH:MM]",
            help="Those recorded then or later, in KPI_TIMEZONE; the feed has ten days.",
        ),
    ],
    workspace: Workspaces = None,
) -> None:
    """Read Email Bison's event feed from a time on, for what webhooks did not deliver.

    Events that are stored already count once. Fails if a client's feed can't be read.
    """
    from kpi_pipeline.sync.feed import recover

    with opened_app() as app:
        start = since.replace(tzinfo=app.timezone).astimezone(UTC)
        report = recover(app, start, _known(app, workspace))
    out.print(
        f"Read the feeds of {counted(len(report.clients), 'client')}: "
        f"{counted(report.new, 'new event')}, {counted(report.moved, 'corrected time')}."
    )
    problems = [f"Instance {name} has no event feed." for name in report.without]
    if problems := [*problems, *report.problems]:
        raise KpiError("\n".join(problems))


@commands.command("purge")
def purge_bodies(
    older_than_days: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Unset: KPI_EVENT_RETENTION_DAYS."),
    ] = None,
) -> None:
    """Delete the bodies and files of old events, with names, addresses and mails.

    Events of a day before last month that raise no number any more are deleted as well; the numbers
    stay. A schedule does so every night.
    """
    from kpi_pipeline.inbox.retention import apply_retention

    with opened_app() as app:
        days = app.settings.event_retention_days
        days = days if older_than_days is None else older_than_days
        inbox = inbox_of(app, realtime=False)
        deleted = apply_retention(inbox, app.settings.drop_dir, days=days)
    out.print(deleted.sentence(days))


def _known(app: AppContext, workspaces: Sequence[str] | None) -> list[str]:
    """The workspace keys, each of which must exist."""
    with app.engine.connect() as connection:
        return [it.workspace for it in pick_clients(connection, workspaces or [])]


def _instant(app: AppContext, since: datetime | None) -> datetime | None:
    if since is None:
        return None
    return since.replace(tzinfo=app.timezone).astimezone(UTC)


def _cells(event: StoredEvent, app: AppContext) -> list[str]:
    owner = event.workspace or f"{event.instance} {event.bison_workspace_id or '–'}"
    return [
        str(event.id),
        local_time(event.arrived_at, app.timezone),
        escape(cell(event.event_type)),
        escape(owner),
        cell(event.business_date if event.metric else None),
        event.status,
        str(event.tries),
        escape(event.reason or ""),
    ]
