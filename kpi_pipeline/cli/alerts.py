"""`kpi alerts`: who is told of trouble, what is wrong now, and what nobody wants to hear of."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Connection

from kpi_pipeline.app import AppContext, open_app
from kpi_pipeline.checks.outcome import Check
from kpi_pipeline.cli.tables import print_whole
from kpi_pipeline.db import alerts as stored_alerts
from kpi_pipeline.db.alerts import AlertState, FailingReceiver
from kpi_pipeline.db.clients import all_clients
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.console import out
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.settings import load_settings

commands = typer.Typer(
    help="Alerts: who gets them, what is wrong now, and what is muted.", no_args_is_help=True
)

_LONGEST_MUTE = timedelta(days=366)
_SPAN = re.compile(r"(?:(?P<days>\d{1,4})d)?(?:(?P<hours>\d{1,4})h)?(?:(?P<minutes>\d{1,4})m)?")

Name = Annotated[
    str,
    typer.Argument(metavar="CLIENT|CHECK", help="A client's key, or a name of `kpi alerts list`."),
]


@commands.command("test")
def send_test() -> None:
    """Send a message to each receiver of KPI_ALERT_URLS; fail if one did not take it."""
    # Imported late: it brings in some hundred services.
    from kpi_pipeline.alerts.delivery import receivers_of
    from kpi_pipeline.alerts.message import Message

    receivers = receivers_of(load_settings().alert_urls)
    if not receivers:
        raise KpiError(
            "KPI_ALERT_URLS names nobody. Set it to one or more addresses as apprise writes them, "
            "such as slack://…, mailto://… or json://HOST/PATH."
        )
    message = Message(
        "A test of kpi_pipeline's alerts",
        "If you read this, alerts reach you here. Nothing is wrong.",
        bad=None,
    )
    taken = 0
    for receiver in receivers:
        good = receiver.take(message)
        taken += good
        mark = "[green]✓[/green] took it" if good else f"[red]✗[/red] {_why(receiver.service)}"
        out.print(f"{escape(receiver.name)}: {mark}", soft_wrap=True)
    out.print(f"{taken} of {len(receivers)} receivers took the message.")
    if taken < len(receivers):
        raise typer.Exit(1)


@commands.command("list")
def list_alerts() -> None:
    """List what is wrong now and whom it was told, what is muted, and who could not be reached."""
    with _opened() as (app, connection):
        now = app.now()
        states = stored_alerts.read_states(connection).values()
        mutes = stored_alerts.read_mutes(connection, now)
        failing = stored_alerts.read_failing(connection).values()
    there = [it for it in states if it.ended_at is None]
    if there:
        print_whole(_table(there, app), out)
    else:
        out.print("Nothing is wrong that anybody is to be told of.")
    for name, until in mutes.items():
        out.print(f"Muted until {_local(until, app)}: {escape(name)}", soft_wrap=True)
    for receiver in failing:
        out.print(_not_reached(receiver, app), soft_wrap=True)


@commands.command("mute")
def mute(
    name: Name,
    span: Annotated[
        str, typer.Option("--for", metavar="SPAN", help="For how long: 2d, 12h, 90m, 1d12h.")
    ],
) -> None:
    """Tell nobody of a client, or of a check, a schedule or the sync as a whole, for a while."""
    length = _length(span)
    with _opened() as (app, connection):
        known = {it.workspace for it in all_clients(connection)}
        known |= set(Check)
        states = stored_alerts.read_states(connection).values()
        known |= {it for state in states for it in state.names}
        if name not in known:
            raise KpiError(
                f"{name} is neither a client's key nor the name of a check or an alert. `kpi "
                "clients list` shows the keys, `kpi alerts list` what is wrong now."
            )
        until = app.now() + length
        stored_alerts.mute(connection, name, until)
    out.print(f"{escape(name)} is muted until {_local(until, app)}.", soft_wrap=True)


@commands.command("unmute")
def unmute(name: Name) -> None:
    """Tell of it again from now on."""
    with _opened() as (app, connection):
        if not stored_alerts.unmute(connection, name, app.now()):
            raise KpiError(f"{name} is not muted. `kpi alerts list` shows what is.")
    out.print(f"{escape(name)} is not muted any more.", soft_wrap=True)


@contextmanager
def _opened() -> Iterator[tuple[AppContext, Connection]]:
    with ExitStack() as stack:
        settings = stack.enter_context(ready_databases(load_settings(), dagster_too=False))
        app = stack.enter_context(open_app(settings))
        yield app, stack.enter_context(app.engine.begin())


def _length(span: str) -> timedelta:
    found = _SPAN.fullmatch(span.strip())
    parts = {name: int(number) for name, number in found.groupdict("0").items()} if found else {}
    length = timedelta(**parts)
    if not timedelta(0) < length <= _LONGEST_MUTE:
        raise KpiError(f"{span!r} is no span. Write one such as 2d, 12h or 90m, 366d at most.")
    return length


def _table(states: list[AlertState], app: AppContext) -> Table:
    table = Table("Name", "", "What", "Clients", "Since", "Told")
    for state in states:
        receivers = [name for name, it in state.told.items() if not it.well]
        table.add_row(
            escape(", ".join(state.names)),
            state.severity,
            escape(state.title),
            str(len(state.clients) or ""),
            _local(state.since, app),
            escape(", ".join(receivers)) or "nobody yet",
        )
    return table


def _not_reached(receiver: FailingReceiver, app: AppContext) -> str:
    return (
        f"[yellow]Not reached:[/yellow] {escape(receiver.receiver)} has taken nothing since "
        f"{_local(receiver.failing_since, app)} ({receiver.tries} tries). `kpi alerts test` "
        "tries it now."
    )


def _local(instant: datetime, app: AppContext) -> str:
    return f"{instant.astimezone(app.timezone):%Y-%m-%d %H:%M}"


def _why(service: object) -> str:
    if service is None:
        return "is no address that apprise knows; see its list of services"
    return "did not take it; check its address, and that it can be reached from here"
