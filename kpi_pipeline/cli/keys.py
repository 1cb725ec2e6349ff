"""`kpi keys`: the clients' own API keys, of which none is ever printed."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from kpi_pipeline.app import AppContext, open_app
from kpi_pipeline.cli.tables import cell, print_whole
from kpi_pipeline.db.api_keys import StoredKey
from kpi_pipeline.db.clients import Client, active_clients, pick_clients
from kpi_pipeline.db.engine import session_lock
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.console import out
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.settings import load_settings
from kpi_pipeline.sync.identity import own_key
from kpi_pipeline.sync.keys import (
    KeyOutcome,
    KeyWork,
    check_key,
    create_key,
    for_each,
    rotate_key,
)

commands = typer.Typer(
    help="The clients' own API keys: who has one, and making, replacing and checking them.",
    no_args_is_help=True,
)

Workspaces = Annotated[
    list[str] | None,
    typer.Option("--workspace", "-w", metavar="KEY", help="A client's key; may be repeated."),
]


@commands.command("list")
def list_keys() -> None:
    """Show which active client has an API key of its own, and when it was last verified.

    The number is the part of a key before its pipe, by which Email Bison's own pages name it.
    """
    with _opened() as app:
        clients = _picked(app, None)
        table = Table("Client", "Name", "Instance", "Own key", "Stored", "Verified")
        for client in clients:
            table.add_row(
                client.workspace,
                escape(client.label),
                client.instance,
                *_about(app, client),
            )
    print_whole(table, out)
    own = sum(client.has_key for client in clients)
    out.print(f"{own} of {len(clients)} active clients have a key of their own.")


@commands.command("create-missing")
def create_missing(
    workspace: Workspaces = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
) -> None:
    """Make a key for each active client that has none, so that no client needs the master key.

    One call for each key, through the master key of its instance. Each is stored encrypted, and
    verified to act in the client's workspace.
    """
    with _opened() as app, session_lock(app.engine, "kpi:keys"):
        # Read under the lock: two such commands at once make one key for each client.
        missing = [client for client in _picked(app, workspace) if not client.has_key]
        if not missing:
            out.print("Every client has a key of its own.")
        elif dry_run:
            _say_what_would_be_made(app, missing)
        else:
            _run(app, missing, create_key, "made, stored and verified", "keys made")


@commands.command()
def rotate(
    workspace: Annotated[str, typer.Argument(metavar="WORKSPACE", help="A client's key.")],
) -> None:
    """Replace a client's own API key by a new one, once that is verified.

    The API has no call that deletes a key: delete the old one in Email Bison's own pages.
    """
    with _opened() as app, session_lock(app.engine, "kpi:keys"):
        [client] = _picked(app, [workspace])
        if not client.has_key:
            raise KpiError(
                f"{workspace} has no key of its own to replace. "
                f"`kpi keys create-missing -w {workspace}` makes one."
            )
        old = _key(app, client)
        _run(app, [client], rotate_key, "verified, and in use from now on", "keys replaced")
    number = f"Key {old.number}" if isinstance(old, StoredKey) else "The old key"
    out.print(f"{number} is not used any more; delete it in Email Bison's own pages.")


@commands.command()
def check(workspace: Workspaces = None) -> None:
    """Ask Email Bison in which workspace each client's own key acts; fail if one is not good."""
    with _opened() as app:
        clients = _picked(app, workspace)
        keyless = [client.workspace for client in clients if not client.has_key]
        if keyless:
            out.print(f"Without a key of their own: {', '.join(keyless)}.", soft_wrap=True)
        keyed = [client for client in clients if client.has_key]
        _run(app, keyed, check_key, "good", "keys good")


@contextmanager
def _opened() -> Iterator[AppContext]:
    with ExitStack() as stack:
        settings = stack.enter_context(ready_databases(load_settings(), dagster_too=False))
        yield stack.enter_context(open_app(settings))


def _picked(app: AppContext, workspaces: Sequence[str] | None) -> list[Client]:
    with app.engine.connect() as connection:
        if workspaces:
            return pick_clients(connection, dict.fromkeys(workspaces))
        return active_clients(connection)


def _key(app: AppContext, client: Client) -> StoredKey | KpiError | None:
    try:
        return own_key(app, client)
    except KpiError as error:
        return error


def _about(app: AppContext, client: Client) -> tuple[str, str, str]:
    match _key(app, client):
        case StoredKey() as key:
            return key.number, cell(key.stored_at), cell(key.verified_at)
        case None:
            return cell(None), cell(None), cell(None)
        case _:
            return "can't be decrypted", cell(None), cell(None)


def _say_what_would_be_made(app: AppContext, missing: Sequence[Client]) -> None:
    instances = app.instances()
    for client in missing:
        instance = instances.get(client.instance)
        can = instance is not None and instance.master_key is not None
        obstacle = f", but instance {client.instance} has no master key in KPI_BISON_INSTANCES"
        out.print(
            f"{client.workspace}: would make a key in workspace {client.bison_workspace_id} of "
            f"{client.instance}{'' if can else obstacle}",
            soft_wrap=True,
        )
    out.print(f"{len(missing)} keys would be made; nothing was done.")


def _run(
    app: AppContext, clients: Sequence[Client], work: KeyWork, done: str, summary: str
) -> None:
    """Do the work, print a line for each client, and exit with 1 if any failed."""

    async def each() -> list[KeyOutcome]:
        outcomes = []
        async for outcome in for_each(app, clients, work):
            _print(outcome, done)
            outcomes.append(outcome)
        return outcomes

    outcomes = asyncio.run(each())
    good = sum(outcome.error is None for outcome in outcomes)
    out.print(f"{good} of {len(outcomes)} {summary}.")
    if good < len(outcomes):
        raise typer.Exit(1)


def _print(outcome: KeyOutcome, done: str) -> None:
    client = outcome.client.workspace
    if outcome.error is None:
        out.print(f"[green]✓[/green] {client}: key {outcome.number} is {done}", soft_wrap=True)
    else:
        error = outcome.error.removeprefix(f"{client}: ")
        out.print(f"[red]✗[/red] {client}: {escape(error)}", soft_wrap=True)
