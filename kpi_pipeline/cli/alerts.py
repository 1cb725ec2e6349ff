"""`kpi alerts` and `kpi summary`: receivers, current problems, mutes, and the daily summary."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Connection

from kpi_pipeline.alerts.summary import read_summary, summary_text
from kpi_pipeline.app import AppContext
from kpi_pipeline.checks.outcome import Check
from kpi_pipeline.cli.common import Day, date_of, local_time, opened_app, out, print_whole
from kpi_pipeline.db import alerts as stored_alerts
from kpi_pipeline.db.alerts import AlertState, FailingReceiver, Mute
from kpi_pipeline.db.registry.clients import all_clients
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import load_settings

commands = typer.Typer(
    help="Alerts: their receivers, the current problems, and what is muted.", no_args_is_help=True
)

_LONGEST_MUTE = timedelta(days=366)
_SPAN = re.compile(r"(?:(?P<days>\d{1,4})d)?(?:(?P<hours>\d{1,4})h)?(?:(?P<minutes>\d{1,4})m)?")

Name = Annotated[
    str,
    typer.Argument(
        metavar="CLIENT|CHECK|CLIENT:CHECK",
        help="A client's workspace key, a name of `kpi alerts list`, or a client in one check.",
    ),
]


@commands.command("test")
def send_test() -> None:
    """Send a message to each receiver of KPI_ALERT_URLS; fail if one does not accept it."""
    # Imported late: it brings in some hundred services.
    from kpi_pipeline.alerts.delivery import receivers_of
    from kpi_pipeline.alerts.message import TEST_MESSAGE

    receivers = receivers_of(load_settings().alert_urls)
    if not receivers:
        raise KpiError(
            "KPI_ALERT_URLS has no receiver. Set it to one or more addresses in apprise's form, "
            "such as slack://…, mailto://… or json://HOST/PATH."
        )
    accepted = 0
    for receiver in receivers:
        good = receiver.send(TEST_MESSAGE)
        accepted += good
        mark = "[green]✓[/green] accepted it" if good else f"[red]✗[/red] {_why(receiver.service)}"
        out.print(f"{escape(receiver.name)}: {mark}", soft_wrap=True)
    out.print(f"{accepted} of {counted(len(receivers), 'receiver')} accepted the message.")
    if accepted < len(receivers):
        raise typer.Exit(1)


@commands.command("list")
def list_alerts() -> None:
    """List the current problems and who was alerted, what is muted, and unreachable receivers."""
    with _opened() as (app, connection):
        now = app.now()
        states = stored_alerts.read_states(connection).values()
        mutes = stored_alerts.read_mutes(connection, now)
        failing = stored_alerts.read_failing(connection).values()
    current = [it for it in states if it.ended_at is None]
    if current:
        print_whole(_table(current, app), out)
    else:
        out.print("There is no problem to alert about.")
    for it in mutes.values():
        until = local_time(it.muted_until, app.timezone)
        out.print(f"Muted until {until}: {escape(it.name)} ({_coverage(it)})", soft_wrap=True)
    for receiver in failing:
        out.print(_not_reached(receiver, app), soft_wrap=True)


@commands.command("mute")
def mute(
    name: Name,
    span: Annotated[
        str, typer.Option("--for", metavar="SPAN", help="For how long: 2d, 12h, 90m, 1d12h.")
    ],
) -> None:
    """Send no alerts about a client, a check, a schedule or the sync as a whole, for a time.

    `acme:plausible` mutes one client in one check: alerts about its other clients go on.
    While the problem is a WARN, it is muted as such: an ERROR is alerted all the same. Made while
    nothing is wrong, before planned work, a mute covers both.
    """
    length = _length(span)
    with _opened() as (app, connection):
        if not _is_known(connection, name):
            raise KpiError(
                f"{name} is neither a client's workspace key nor the name of a check or an alert. "
                "`kpi clients list` shows the keys, `kpi alerts list` the current problems; "
                "a client in one of them is written CLIENT:CHECK."
            )
        now = app.now()
        made = stored_alerts.mute(connection, name, now + length, now)
    until = local_time(made.muted_until, app.timezone)
    out.print(f"{escape(name)} is muted until {until}: {_coverage(made)}.", soft_wrap=True)


@commands.command("unmute")
def unmute(name: Name) -> None:
    """Send alerts about it again."""
    with _opened() as (app, connection):
        if not stored_alerts.unmute(connection, name, app.now()):
            raise KpiError(f"{name} is not muted. `kpi alerts list` shows what is.")
    out.print(f"{escape(name)} is no longer muted.", soft_wrap=True)


def print_summary(day: Day = None) -> None:
    """Print the daily summary of one date; without a date: yesterday's."""
    with opened_app() as app, app.engine.connect() as connection:
        shown = date_of(day) or app.today() - timedelta(days=1)
        message = summary_text(read_summary(connection, shown), app.timezone, app.day_zone)
    out.print(f"{message.title}\n{message.body}", markup=False, soft_wrap=True)


@contextmanager
def _opened() -> Iterator[tuple[AppContext, Connection]]:
    with opened_app() as app, app.engine.begin() as connection:
        yield app, connection


def _is_known(connection: Connection, name: str) -> bool:
    """Whether it names a client, a problem, or a client in a problem."""
    clients = {it.workspace for it in all_clients(connection)}
    states = stored_alerts.read_states(connection).values()
    problems = {*Check, stored_alerts.SYNC, *(it for state in states for it in state.names)}
    client, is_pair, problem = name.partition(":")
    return client in clients and problem in problems if is_pair else name in clients | problems


def _length(span: str) -> timedelta:
    found = _SPAN.fullmatch(span.strip())
    parts = {name: int(number) for name, number in found.groupdict("0").items()} if found else {}
    length = timedelta(**parts)
    if not timedelta(0) < length <= _LONGEST_MUTE:
        raise KpiError(f"{span!r} is not a span. Write one such as 2d, 12h or 90m, 366d at most.")
    return length


def _coverage(mute: Mute) -> str:
    """What a mute covers."""
    client, _, check = mute.name.partition(":")
    what = f"{client} in {check}" if check else client
    if mute.covers("ERROR"):
        return f"all about {what}"
    return f"WARNs about {what}; an ERROR is alerted"


def _table(states: list[AlertState], app: AppContext) -> Table:
    table = Table("Name", "", "Problem", "Clients", "Since", "Alerted")
    for state in states:
        receivers = [name for name, it in state.told.items() if not it.well]
        table.add_row(
            escape(", ".join(state.names)),
            state.severity,
            escape(state.title) + (f"; began {state.flaps} times in 24 h" if state.flaps else ""),
            str(len(state.clients) or ""),
            local_time(state.since, app.timezone),
            "muted" if state.muted_at else escape(", ".join(receivers)) or "no one yet",
        )
    return table


def _not_reached(receiver: FailingReceiver, app: AppContext) -> str:
    return (
        f"[yellow]Unreachable:[/yellow] {escape(receiver.receiver)} has accepted nothing since "
        f"{local_time(receiver.failing_since, app.timezone)} ({counted(receiver.tries, 'try')}). "
        "`kpi alerts test` tries it now."
    )


def _why(service: object) -> str:
    if service is None:
        return "is not an address that apprise knows; see its list of services"
    return "did not accept it; check its address, and that it is reachable from here"
