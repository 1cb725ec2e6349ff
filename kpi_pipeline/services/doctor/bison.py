"""Checks of Email Bison and of the clients: instances, workspaces, API keys and targets."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TypeVar

from pydantic import SecretStr

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import (
    BisonClient,
    BisonError,
    BisonInstance,
    RejectedKey,
    Unavailable,
    WorkspaceGone,
    WrongWorkspace,
)
from kpi_pipeline.db.registry.clients import Client
from kpi_pipeline.db.registry.targets import targets_of
from kpi_pipeline.domain.calendar import first_of_month
from kpi_pipeline.domain.formatting import counted, listed
from kpi_pipeline.instances import NO_INSTANCE
from kpi_pipeline.services.doctor.examination import Examination
from kpi_pipeline.services.doctor.finding import (
    Finding,
    good,
    not_checked,
    of_bison,
    problem,
    warning,
)
from kpi_pipeline.sync.identity import workspace_ref
from kpi_pipeline.sync.run import for_each_client

T = TypeVar("T")

NOT_ANSWERING = "No instance of Email Bison that has clients answers."
_IMPORT = (
    "`kpi clients export > clients.csv`, fill in the file, and `kpi clients import clients.csv`"
)


async def of_each_client(
    app: AppContext,
    clients: Sequence[Client],
    work: Callable[[BisonClient, Client], Awaitable[T]],
) -> list[T]:
    """Do `work` for clients of configured instances, some at a time; results are in any order."""
    async with AsyncExitStack() as stack:
        opened = {
            name: await stack.enter_async_context(app.bison_client(app.instance(name)))
            for name in dict.fromkeys(client.instance for client in clients)
        }
        return await for_each_client(
            clients, lambda it: work(opened[it.instance], it), app.settings.bison_concurrency
        )


def bison(examination: Examination) -> Iterator[Finding]:
    """Each instance answers, and accepts its master key."""
    instances = examination.app.instances()
    if not instances:
        yield problem(NO_INSTANCE)
    for instance in instances.values():
        clients = [it for it in examination.clients if it.instance == instance.name]
        names = [it.workspace for it in clients]
        try:
            yield asyncio.run(_of_instance(examination, instance, clients))
        except Unavailable as error:
            yield of_bison(error, names)
        except BisonError as error:
            # It answers: the keys of clients may be good all the same.
            examination.answering.add(instance.name)
            served_by_master = [it.workspace for it in clients if not it.has_key]
            yield of_bison(error, served_by_master)
        else:
            examination.answering.add(instance.name)


async def _of_instance(
    examination: Examination, instance: BisonInstance, clients: Sequence[Client]
) -> Finding:
    async with examination.app.bison_client(instance) as client:
        if instance.master_key is not None:
            found = await client.list_workspaces()
            examination.listed[instance.name] = found
            workspaces = counted(len(found), "workspace")
            return good(
                f"{instance.name}: {instance.base_url} lists {workspaces} to the master key."
            )
        for one in clients:
            if (key := examination.keys.get(one.workspace)) is not None:
                # That is an answer, too. What is wrong with the key, `keys` says.
                with suppress(RejectedKey, WrongWorkspace, WorkspaceGone):
                    await client.check_key(workspace_ref(one), key.secret)
                return good(f"{instance.name}: {instance.base_url} answers; it has no master key.")
    return not_checked(f"{instance.name} has neither a master key nor a client with a key.")


def clients(examination: Examination) -> Iterator[Finding]:
    """There are clients, and each has an instance and a key."""
    active, instances = examination.clients, examination.app.instances()
    if not active:
        yield problem(
            "There is no active client.",
            "`kpi clients template` shows the file that `kpi clients import FILE` takes.",
        )
        return
    # Without any, `bison` says so.
    unknown = [it for it in active if instances and it.instance not in instances]
    keyless = [
        it
        for it in active
        if it.instance in instances and instances[it.instance].master_key is None and not it.has_key
    ]
    for name in dict.fromkeys(it.instance for it in unknown):
        of_it = [it.workspace for it in unknown if it.instance == name]
        yield problem(
            f"{name}, the instance of {listed(of_it)}, is not configured.",
            "Add it to KPI_BISON_INSTANCES, or correct the clients' instance.",
            of_it,
        )
    if keyless:
        names = [it.workspace for it in keyless]
        yield problem(
            f"{counted(len(names), 'client')} without an API key, whose instance has no master "
            f"key: {listed(names)}.",
            "Add the master key to KPI_BISON_INSTANCES, or import the clients' own keys.",
            names,
        )
    if not unknown and not keyless:
        own = sum(it.has_key for it in active)
        yield good(f"{counted(len(active), 'active client')}, {own} with a key of their own.")


def workspaces(examination: Examination) -> Iterator[Finding]:
    """Each client is a workspace of Email Bison, and each workspace is a client."""
    if not examination.listed:
        yield not_checked("No instance listed its workspaces.")
        return
    known = {(it.instance, it.bison_workspace_id) for it in examination.every_client}
    # Such an instance may be one of these by a wrong name, which `clients` says.
    known_ids = {
        it.bison_workspace_id
        for it in examination.every_client
        if it.instance not in examination.app.instances()
    }
    vanished, unknown = [], []
    for name, found in examination.listed.items():
        ids = {it.id for it in found}
        vanished += [
            it.workspace
            for it in examination.clients
            if it.instance == name and it.bison_workspace_id not in ids
        ]
        unknown += [
            f"{it.name.strip()} ({name} {it.id})"
            for it in found
            if (name, it.id) not in known and it.id not in known_ids
        ]
    if vanished:
        yield problem(
            f"Email Bison no longer has the workspace of {listed(vanished)}.",
            f"Set who left inactive: {_IMPORT}.",
            vanished,
        )
    if unknown:
        yield warning(
            f"{counted(len(unknown), 'workspace')} of Email Bison without a client: "
            f"{listed(unknown)}.",
            "Import it with `kpi clients import`, with active = no if it is no client.",
        )
    if not vanished and not unknown:
        yield good("Each client is a workspace of Email Bison, and each workspace is known.")


def keys(examination: Examination) -> Iterator[Finding]:
    """Email Bison accepts each client's key, and it acts in the client's workspace."""
    app, left_out = examination.app, examination.named(["workspaces"])
    keyed = [
        it
        for it in examination.served(examination.clients)
        if it.workspace in examination.keys and it.workspace not in left_out
    ]
    if not keyed:
        yield not_checked("No key could be tried.")
        return

    async def one(client: BisonClient, it: Client) -> _KeyTried:
        try:
            await client.check_key(workspace_ref(it), examination.keys[it.workspace].secret)
        except BisonError as error:
            return _KeyTried(it, error)
        return _KeyTried(it)

    tried = asyncio.run(of_each_client(app, keyed, one))
    for it in sorted(tried, key=lambda it: it.client.workspace):
        if it.error is not None:
            yield _of_key(it.client, it.error, app.instances()[it.client.instance].master_key)
    accepted = sum(it.error is None for it in tried)
    if accepted == len(tried):
        yield good(f"{counted(accepted, 'key')} accepted, each in its client's workspace.")


@dataclass(frozen=True)
class _KeyTried:
    client: Client
    error: BisonError | None = None


def _of_key(client: Client, error: BisonError, master_key: SecretStr | None) -> Finding:
    if not isinstance(error, RejectedKey | WrongWorkspace | WorkspaceGone):
        text = f"The key of {client.workspace} could not be tried: {error.call} {error.what}."
        return warning(text, f"{error.remedy}.", [client.workspace])
    remedy = (
        f"`kpi keys rotate {client.workspace}` makes a new one."
        if master_key is not None
        else f"{error.remedy}."
    )
    return problem(f"{client.workspace}: {error.call} {error.what}.", remedy, [client.workspace])


def targets(examination: Examination) -> Iterator[Finding]:
    """Each active client has a target for this month."""
    app = examination.app
    month = first_of_month(app.today())
    with app.engine.connect() as connection:
        without = [
            it.workspace
            for it in examination.clients
            if targets_of(connection, it.workspace, month).monthly_kpi_target is None
        ]
    if without:
        yield warning(
            f"{counted(len(without), 'client')} without a target for {month:%B %Y}: "
            f"{listed(without)}.",
            f"Set it on the client's page, or for all: {_IMPORT}.",
            without,
        )
    elif examination.clients:
        yield good(f"Each client has a target for {month:%B %Y}.")
    else:
        yield not_checked("There is no active client.")
