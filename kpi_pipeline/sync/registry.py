"""Compares the client registry with Bison's list of workspaces; verifies API keys and webhooks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import (
    BisonClient,
    BisonError,
    BisonInstance,
    RejectedKey,
    Unavailable,
    Workspace,
    WorkspaceGone,
    WrongWorkspace,
)
from kpi_pipeline.db.registry.clients import Client, active_clients, all_clients, relabel
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings.webhooks import has_webhooks, webhook_url
from kpi_pipeline.sync.fetch import report_unknown_fields
from kpi_pipeline.sync.identity import confirm_key, own_key
from kpi_pipeline.sync.run import for_each_client
from kpi_pipeline.sync.webhooks import WebhooksOutcome, verify_client


@dataclass
class RegistryReport:
    """Findings of the comparison; each entry is a line for a person to read.

    `active` holds workspaces, `listed` the number of workspaces that Bison lists. `unknown` are
    workspaces without a client, `vanished` clients without a workspace. `unserved` are clients that
    no configured instance or API key covers. `webhooks` says what is wrong with those of a client.
    `unread` and `unanswered` name the instances whose list is invalid or did not come.
    """

    active: list[str] = field(default_factory=list)
    listed: int = 0
    unknown: list[str] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)
    bad_keys: list[str] = field(default_factory=list)
    unchecked_keys: list[str] = field(default_factory=list)
    not_listed: list[str] = field(default_factory=list)
    unserved: list[str] = field(default_factory=list)
    webhooks: list[str] = field(default_factory=list)
    unchecked_webhooks: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)


async def refresh_registry(app: AppContext) -> RegistryReport:
    """Read each instance's workspaces, adopt their names, and verify clients' keys and webhooks.

    An unregistered workspace is reported, not added: the agency decides whether it is a client, and
    with which target. A client that Bison no longer lists stays, and is reported. If an instance's
    list can't be read, nothing of that instance changes, and the other instances continue.
    """
    report = RegistryReport()
    with app.engine.connect() as connection:
        known = all_clients(connection)
    instances = app.instances()
    report.unserved = list(_unserved(known, instances))
    for name, instance in instances.items():
        here = [client for client in known if client.instance == name]
        async with app.bison_client(instance) as bison:
            try:
                await _refresh(app, bison, instance, here, report)
            except Unavailable as error:
                report.unanswered.append(str(error))
            except BisonError as error:
                report.unread.append(str(error))
            report_unknown_fields(app, name, bison.unknown_fields)
    with app.engine.connect() as connection:
        report.active = [client.workspace for client in active_clients(connection)]
    return report


def _unserved(known: Sequence[Client], instances: Mapping[str, BisonInstance]) -> Iterator[str]:
    """Active clients that no configured instance or API key covers."""
    for client in known:
        instance = instances.get(client.instance)
        if not client.active:
            continue
        if instance is None:
            yield f"{client.workspace}: its instance {client.instance} is not configured"
        elif instance.master_key is None and not client.has_key:
            yield f"{client.workspace}: it has no key, and {client.instance} has no master key"


async def _refresh(
    app: AppContext,
    bison: BisonClient,
    instance: BisonInstance,
    known: Sequence[Client],
    report: RegistryReport,
) -> None:
    if instance.master_key is None:
        report.not_listed.append(
            f"{instance.name}: without a master key in KPI_BISON_INSTANCES its workspaces can't be "
            "listed"
        )
    else:
        _compare(app, known, await bison.list_workspaces(), instance.name, report)
    await _check_keys(app, bison, known, report)
    if has_webhooks(app.settings, instance.name):
        await _check_webhooks(app, bison, known, report)


def _compare(
    app: AppContext,
    known: Sequence[Client],
    listed: Sequence[Workspace],
    instance: str,
    report: RegistryReport,
) -> None:
    by_id = {client.bison_workspace_id: client for client in known}
    names = {workspace.id: workspace.name.strip() for workspace in listed}
    report.listed += len(names)
    for workspace_id, name in names.items():
        client = by_id.get(workspace_id)
        if client is None:
            report.unknown.append(f"{instance} {workspace_id}: {name}")
        elif client.name != name:
            report.renamed.append(f"{client.workspace}: {client.name} → {name}")
    report.vanished += [
        f"{client.workspace}: {instance} {client.bison_workspace_id}, {client.name}"
        for client in known
        if client.active and client.bison_workspace_id not in names
    ]
    present = {
        it.workspace: names[it.bison_workspace_id] for it in known if it.bison_workspace_id in names
    }
    with app.engine.begin() as connection:
        relabel(connection, present, app.now())


async def _check_keys(
    app: AppContext, bison: BisonClient, known: Sequence[Client], report: RegistryReport
) -> None:
    for client in known:
        if not (client.active and client.has_key):
            continue
        try:
            if key := own_key(app, client):
                await confirm_key(app, bison, client, key)
        except KpiError as error:
            report.bad_keys.append(f"{client.workspace}: {error}")
        except (RejectedKey, WrongWorkspace, WorkspaceGone) as error:
            report.bad_keys.append(str(error))
        except BisonError as error:
            report.unchecked_keys.append(str(error))


async def _check_webhooks(
    app: AppContext, bison: BisonClient, known: Sequence[Client], report: RegistryReport
) -> None:
    """Find what is wrong with the webhooks of the clients that have no other problem."""
    lines = (report.vanished, report.unserved, report.bad_keys, report.unchecked_keys)
    reported = {line.partition(":")[0] for line in chain.from_iterable(lines)}

    async def verify(client: Client) -> WebhooksOutcome:
        return await verify_client(app, bison, client, webhook_url(app.settings, client.instance))

    clients = [it for it in known if it.active and it.workspace not in reported]
    outcomes = await for_each_client(clients, verify, app.settings.bison_concurrency)
    for outcome in sorted(outcomes, key=lambda it: it.client.workspace):
        workspace = outcome.client.workspace
        report.webhooks += [f"{workspace}: {problem}" for problem in outcome.problems]
        if outcome.error is not None:
            error = outcome.error.removeprefix(f"{workspace}: ")
            report.unchecked_webhooks.append(f"{workspace}: {error}")
