"""`kpi webhooks`: register webhooks in the clients' workspaces, verify, remove, and test them.

No URL of a webhook is ever printed whole: its last part is a secret.
"""

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Annotated

import typer
from rich.markup import escape

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import BisonError
from kpi_pipeline.cli.common import Workspaces, exit_unless, opened_app, out, print_warning
from kpi_pipeline.db.coordination.lease import exclusive
from kpi_pipeline.db.registry.clients import Client, active_clients, pick_clients
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings.webhooks import has_webhooks, shown_url, webhook_url
from kpi_pipeline.sync.webhook_probe import send_test_event
from kpi_pipeline.sync.webhooks import (
    Planner,
    Verb,
    WebhooksOutcome,
    apply_plans,
    plan_registration,
    plan_removal,
    verify_webhooks,
)

commands = typer.Typer(
    help="Webhooks in the clients' workspaces: register, verify, remove and test them.",
    no_args_is_help=True,
)

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")
]

_DONE = {Verb.CREATE: "created", Verb.CHANGE: "changed", Verb.DELETE: "deleted"}


@commands.command()
def register(
    workspace: Workspaces = None,
    dry_run: DryRun = False,
    delete_dead: Annotated[
        bool,
        typer.Option(
            "--delete-dead",
            help="Also delete dead webhooks: they lead to the gateway, but not to the address of "
            "their instance, as after a change of its secret.",
        ),
    ] = False,
) -> None:
    """Give each client's workspace exactly one webhook to the gateway.

    Its address is KPI_GATEWAY_URL with the secret of the instance, and it sends the types of event
    that are counted. Webhooks with another address are not changed. A second run changes nothing.
    """
    _apply(workspace, partial(plan_registration, delete_dead=delete_dead), dry_run=dry_run)


@commands.command()
def unregister(workspace: Workspaces = None, dry_run: DryRun = False) -> None:
    """Delete the webhooks that have the gateway's address; others are not changed."""
    _apply(workspace, plan_removal, dry_run=dry_run)


@commands.command()
def verify(workspace: Workspaces = None) -> None:
    """Name webhooks that are missing, doubled, or dead, and types of event that are not counted.

    Exits with code 1 if there are any. The check `registry_matches_bison` does the same each night.
    """
    with opened_app() as app:
        outcomes = asyncio.run(verify_webhooks(app, _picked(app, workspace)))
    for outcome in outcomes:
        for problem in outcome.problems:
            _print(outcome, f"{problem}.", good=False)
        _print_error(outcome)
    good = sum(not it.problems and it.error is None for it in outcomes)
    out.print(f"Webhooks are right in {good} of {counted(len(outcomes), 'workspace')}.")
    exit_unless(good == len(outcomes))


@commands.command("test")
def send_test(workspace: Workspaces = None) -> None:
    """Have Email Bison send a test event, and wait until the gateway has stored it.

    One for each instance, or for each client that is named. A test event counts nothing. If it does
    not arrive within 30 seconds, the command says what is wrong, and exits with code 1.
    """
    all_arrived = True
    with opened_app() as app:
        clients = _picked(app, workspace)
        for client in clients if workspace else _one_of_each_instance(clients):
            where = shown_url(app.settings)
            out.print(f"{client.workspace}: a test event goes to {where}", soft_wrap=True)
            try:
                seconds = send_test_event(app, client)
            except (BisonError, KpiError) as error:
                all_arrived = False
                out.print(f"[red]✗[/red] {escape(str(error))}", soft_wrap=True)
            else:
                out.print(
                    f"[green]✓[/green] {client.instance}: it was stored after {seconds:.1f} s, as "
                    "a test, which counts nothing.",
                    soft_wrap=True,
                )
    exit_unless(all_arrived)


def _apply(workspaces: Sequence[str] | None, plan: Planner, *, dry_run: bool) -> None:
    with opened_app() as app, exclusive(app.engine, "kpi:webhooks"):
        clients = _picked(app, workspaces)
        out.print(f"The address of webhooks is {shown_url(app.settings)}", soft_wrap=True)
        outcomes = asyncio.run(apply_plans(app, clients, plan, dry_run=dry_run))
    for outcome in outcomes:
        for change in outcome.changes:
            done = f"would {change.verb}" if dry_run else _DONE[change.verb]
            _print(outcome, f"{done} {change.what}", good=None if dry_run else True)
        _print_error(outcome)
    changed = sum(bool(it.changes) for it in outcomes)
    failed = sum(it.error is not None for it in outcomes)
    of_all = f"{changed} of {counted(len(outcomes), 'client')}"
    out.print(f"{of_all} would change; nothing was done." if dry_run else f"{of_all} changed.")
    exit_unless(not failed)


def _picked(app: AppContext, workspaces: Sequence[str] | None) -> list[Client]:
    """The named clients, or all active ones of instances that have webhooks.

    Raises:
        KpiError: naming the setting that is missing, if a named client, or every one, has no URL.
    """
    with app.engine.connect() as connection:
        named = pick_clients(connection, dict.fromkeys(workspaces or ()))
        clients = named or active_clients(connection)
    instances = dict.fromkeys(client.instance for client in clients)
    without = [name for name in instances if not has_webhooks(app.settings, name)]
    if without and (named or len(without) == len(instances)):
        # Raises, and names the setting that is missing.
        webhook_url(app.settings, without[0])
    for name in without:
        print_warning(f"{name} has no webhook secret, so its clients are left out.")
    return [client for client in clients if client.instance not in without]


def _one_of_each_instance(clients: Iterable[Client]) -> list[Client]:
    """The first client of each instance, one with a key of its own if there is any."""
    chosen: dict[str, Client] = {}
    for client in clients:
        before = chosen.get(client.instance)
        if before is None or (client.has_key and not before.has_key):
            chosen[client.instance] = client
    return list(chosen.values())


def _print(outcome: WebhooksOutcome, text: str, *, good: bool | None) -> None:
    mark = {True: "[green]✓[/green] ", False: "[red]✗[/red] ", None: ""}[good]
    out.print(f"{mark}{outcome.client.workspace}: {escape(text)}", soft_wrap=True)


def _print_error(outcome: WebhooksOutcome) -> None:
    if outcome.error is not None:
        error = outcome.error.removeprefix(f"{outcome.client.workspace}: ")
        _print(outcome, error, good=False)
