"""`kpi keys` and `kpi secret-key`: the clients' own API keys, and what encrypts them.

No API key is ever printed.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from kpi_pipeline.app import AppContext
from kpi_pipeline.cli.common import Workspaces, cell, local_time, opened_app, out, print_whole
from kpi_pipeline.db.coordination.lease import exclusive
from kpi_pipeline.db.registry.api_keys import StoredKey, rotate_secret_key
from kpi_pipeline.db.registry.clients import Client, active_clients, pick_clients
from kpi_pipeline.db.registry.vault import key_file, new_secret_key
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.errors import KpiError
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
    help="The clients' own API keys: list, create, replace and check them.",
    no_args_is_help=True,
)
secret_key_commands = typer.Typer(
    help="The secret key that encrypts the API keys: print a new one, or rotate it.",
    invoke_without_command=True,
)


@commands.command("list")
def list_keys() -> None:
    """Show which active clients have an API key of their own, and when it was last verified.

    The number is the part of a key before its pipe, by which Email Bison's own pages name it.
    """
    with opened_app() as app:
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
        bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")
    ] = False,
) -> None:
    """Create an API key for each active client that has none: no client needs the master key then.

    It takes one call for each API key, with the master key of its instance. Each is stored
    encrypted, and verified to act in the client's workspace.
    """
    with opened_app() as app, exclusive(app.engine, "kpi:keys"):
        # Read under the lock: two such commands at once create one key for each client.
        missing = [client for client in _picked(app, workspace) if not client.has_key]
        if not missing:
            out.print("Every client has a key of its own.")
        elif dry_run:
            _print_dry_run(app, missing)
        else:
            _run(app, missing, create_key, "made, stored and verified", "keys made")


@commands.command()
def rotate(
    workspace: Annotated[str, typer.Argument(metavar="WORKSPACE", help="A client's workspace.")],
) -> None:
    """Replace a client's own API key with a new one, once that is verified.

    Email Bison's API can't delete a key: delete the old one in Email Bison's own pages.
    """
    with opened_app() as app, exclusive(app.engine, "kpi:keys"):
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
    """Verify with Email Bison that each client's own API key acts in the client's workspace.

    Exits with code 1 if one does not.
    """
    with opened_app() as app:
        clients = _picked(app, workspace)
        keyless = [client.workspace for client in clients if not client.has_key]
        if keyless:
            out.print(f"Without a key of their own: {', '.join(keyless)}.", soft_wrap=True)
        keyed = [client for client in clients if client.has_key]
        _run(app, keyed, check_key, "good", "keys good")


@secret_key_commands.callback()
def secret_key(context: typer.Context) -> None:
    """The secret key that encrypts the API keys. Without a command: print a new one."""
    if context.invoked_subcommand is None:
        print_new()


@secret_key_commands.command("new")
def print_new() -> None:
    """Print a new secret key for KPI_SECRET_KEY; nothing is changed."""
    out.print(new_secret_key())


@secret_key_commands.command("rotate")
def rotate_secret() -> None:
    """Encrypt every stored API key under a new secret key; the old one stays readable until then.

    The generated `secret.key` is replaced. With KPI_SECRET_KEY: first set it to NEW,OLD for every
    process and restart them, then run this, then remove OLD. When it was interrupted, run it again.
    """
    with opened_app() as app:
        configured, state_dir = app.settings.secret_key, app.settings.state_dir
        count = rotate_secret_key(app.engine, configured, state_dir)
    if configured is None:
        done = f"a new secret key in {key_file(state_dir)}; back that file up."
        old = "the secret.key from before"
    else:
        done = "the first key of KPI_SECRET_KEY. Remove the others from it, and restart."
        old = "the secret key from before"
    out.print(f"{count} API keys are encrypted under {done}", soft_wrap=True)
    out.print(f"A backup of the database from before needs {old}.", soft_wrap=True)


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
            # What a clock that ran ahead has noted is not believed.
            believed = key.verified_at is not None and key.verified_at <= app.now()
            verified_at = key.verified_at if believed else None
            stored, verified = (local_time(it, app.timezone) for it in (key.stored_at, verified_at))
            return key.number, stored, verified
        case None:
            return cell(None), cell(None), cell(None)
        case _:
            return "can't be decrypted", cell(None), cell(None)


def _print_dry_run(app: AppContext, missing: Sequence[Client]) -> None:
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
    out.print(f"{counted(len(missing), 'key')} would be made; nothing was done.")


def _run(
    app: AppContext, clients: Sequence[Client], work: KeyWork, done: str, summary: str
) -> None:
    """Do the work, print a line for each client, and exit with code 1 if any failed."""

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
