"""The webhooks that clients' workspaces should have, and how they differ from those they have."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from urllib.parse import urlsplit

from pydantic import SecretStr

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import (
    BisonClient,
    BisonError,
    MalformedAnswer,
    Unavailable,
    Webhook,
    WorkspaceGone,
    WorkspaceReader,
)
from kpi_pipeline.bison.webhooks import WebhookCalls
from kpi_pipeline.db.registry.clients import Client
from kpi_pipeline.domain.events.kinds import COUNTED
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings.webhooks import WEBHOOK_PATH, webhook_url
from kpi_pipeline.sync.fetch import report_unknown_fields
from kpi_pipeline.sync.identity import read_client
from kpi_pipeline.sync.run import for_each_client

# The types of event that a webhook of ours sends, and its name in Email Bison's own pages.
EVENTS = tuple(COUNTED)
NAME = "kpi_pipeline"

_PORTS = {"http": 80, "https": 443}


class Verb(StrEnum):
    """What is done with a webhook."""

    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"


@dataclass(frozen=True)
class Change:
    """A change of a workspace's webhooks. `hook` is the one that it changes or deletes.

    `what` says what it is about, as the object of the verb, without an address.
    """

    verb: Verb
    what: str
    hook: Webhook | None = None


Planner = Callable[[Sequence[Webhook], SecretStr], Sequence[Change]]


def plan_registration(
    hooks: Sequence[Webhook], url: SecretStr, *, delete_dead: bool = False
) -> list[Change]:
    """The changes after which exactly one of `hooks` has the address `url`, with our events.

    Webhooks with another address are not changed; but with `delete_dead`, those that lead to the
    gateway and not to this address are deleted. What is created comes first, so no event is missed.
    """
    own = _own(hooks, url)
    changes = []
    if own:
        kept = next((hook for hook in own if hook.events == set(EVENTS)), own[0])
        if difference := _difference(kept):
            changes.append(Change(Verb.CHANGE, f"webhook {kept.id}: {difference}", kept))
        changes += [
            Change(Verb.DELETE, f"webhook {hook.id}, which has the address of {kept.id}", hook)
            for hook in own
            if hook != kept
        ]
    else:
        changes.append(Change(Verb.CREATE, f"a webhook for {_all(EVENTS)}"))
    if delete_dead:
        changes += [
            Change(Verb.DELETE, f"webhook {hook.id}, which is dead", hook)
            for hook in _dead(hooks, url)
        ]
    return changes


def plan_removal(hooks: Sequence[Webhook], url: SecretStr) -> list[Change]:
    """The changes after which none of `hooks` has the address `url`."""
    return [Change(Verb.DELETE, f"webhook {hook.id}", hook) for hook in _own(hooks, url)]


def find_problems(hooks: Sequence[Webhook], url: SecretStr) -> list[str]:
    """What is wrong with the webhooks of a workspace whose events should come to `url`.

    Each is a clause that begins with its kind: missing, doubled, foreign events, or dead.
    """
    own = _own(hooks, url)
    problems = []
    sent = {event for hook in own for event in hook.events}
    if not own:
        problems.append("missing: no webhook has the gateway's address")
    elif lacking := [event for event in EVENTS if event not in sent]:
        problems.append(f"missing: no webhook sends {_all(lacking)}")
    if len(own) > 1:
        ids = [str(hook.id) for hook in own]
        problems.append(f"doubled: webhooks {_all(ids)} have the same address")
    problems += [
        f"foreign events: webhook {hook.id} sends {_all(foreign)}, which is not counted"
        for hook in own
        if (foreign := sorted(hook.events.difference(EVENTS)))
    ]
    problems += [
        f"dead: webhook {hook.id} leads to the gateway, but not to the address of this instance "
        "(another secret, or http in place of https)"
        for hook in _dead(hooks, url)
    ]
    return problems


def _difference(hook: Webhook) -> str:
    lacking = [f"add {event}" for event in EVENTS if event not in hook.events]
    foreign = [f"remove {event}" for event in sorted(hook.events.difference(EVENTS))]
    return _all([*lacking, *foreign])


def _all(words: Sequence[str]) -> str:
    return ", ".join(words)


def _own(hooks: Sequence[Webhook], url: SecretStr) -> list[Webhook]:
    """Those with this address, the oldest first."""
    wanted = _address(url)
    return sorted((hook for hook in hooks if _address(hook.url) == wanted), key=lambda it: it.id)


def _dead(hooks: Sequence[Webhook], url: SecretStr) -> list[Webhook]:
    """Those that lead to the gateway of this address, but not to the address itself."""
    _, gateway, _ = _address(url)
    found = []
    for hook in hooks:
        _, server, path = address = _address(hook.url)
        at_gateway = server == gateway and f"{path}/".startswith(f"{WEBHOOK_PATH}/")
        if at_gateway and address != _address(url):
            found.append(hook)
    return sorted(found, key=lambda it: it.id)


def _address(url: SecretStr) -> tuple[str, tuple[str, int | None], str]:
    """Scheme, server and path of a URL; a port that its scheme implies is None."""
    try:
        parts = urlsplit(url.get_secret_value().strip())
        port = None if parts.port == _PORTS.get(parts.scheme) else parts.port
    except ValueError:
        return "", ("", None), ""
    return parts.scheme, (parts.hostname or "", port), parts.path


@dataclass(frozen=True)
class WebhooksOutcome:
    """Result of the work on one client's webhooks.

    `changes` were made, or would be in a dry run; `problems` were found; `error` is a sentence, or
    None on success.
    """

    client: Client
    changes: Sequence[Change] = ()
    problems: Sequence[str] = ()
    error: str | None = None


async def apply_plans(
    app: AppContext, clients: Sequence[Client], plan: Planner, *, dry_run: bool
) -> list[WebhooksOutcome]:
    """Read the webhooks of each client, plan their changes, and make them unless in a dry run.

    A client without an own key is changed with the master key, in a workspace that is verified
    before and after: if somebody switches the key in between, it is all done again.
    """

    async def one(bison: BisonClient, client: Client, url: SecretStr) -> WebhooksOutcome:
        made: list[Change] = []
        left: Sequence[Change] = ()
        work = partial(_change, client, url, plan, made, dry_run=dry_run)
        try:
            left, problem = await read_client(app, bison, client, work)
        except (BisonError, KpiError) as error:
            problem = error
        # What was done again was planned again.
        changes = [change for change in dict.fromkeys(made) if change not in left]
        return WebhooksOutcome(client, changes, error=str(problem) if problem else None)

    return await _for_each(app, clients, one)


async def verify_webhooks(app: AppContext, clients: Sequence[Client]) -> list[WebhooksOutcome]:
    """Read the webhooks of each client, and find what is wrong with them."""
    return await _for_each(app, clients, partial(verify_client, app))


async def verify_client(
    app: AppContext, bison: BisonClient, client: Client, url: SecretStr
) -> WebhooksOutcome:
    """Read the webhooks of one client, whose events should come to `url`."""
    try:
        hooks = await read_client(app, bison, client, WorkspaceReader.webhooks)
    except (BisonError, KpiError) as problem:
        return WebhooksOutcome(client, error=str(problem))
    return WebhooksOutcome(client, problems=find_problems(hooks, url))


async def _for_each(
    app: AppContext,
    clients: Sequence[Client],
    work: Callable[[BisonClient, Client, SecretStr], Awaitable[WebhooksOutcome]],
) -> list[WebhooksOutcome]:
    """Do `work` for the clients, as syncs do it; the outcomes are in the order of the clients."""
    async with AsyncExitStack() as stack:
        opened: dict[str, BisonClient] = {}
        for name, instance in app.instances().items():
            if any(client.instance == name for client in clients):
                opened[name] = await stack.enter_async_context(app.bison_client(instance))

        async def one(client: Client) -> WebhooksOutcome:
            try:
                bison = opened[app.instance(client.instance).name]
                return await work(bison, client, webhook_url(app.settings, client.instance))
            except KpiError as error:
                return WebhooksOutcome(client, error=str(error))

        outcomes = await for_each_client(clients, one, app.settings.bison_concurrency)
        for name, bison in opened.items():
            report_unknown_fields(app, name, bison.unknown_fields)
    done: Mapping[str, WebhooksOutcome] = {it.client.workspace: it for it in outcomes}
    return [done[client.workspace] for client in clients]


async def _change(
    client: Client,
    url: SecretStr,
    plan: Planner,
    made: list[Change],
    reader: WorkspaceReader,
    *,
    dry_run: bool,
) -> tuple[Sequence[Change], BisonError | KpiError | None]:
    """Make the changes of the plan, and add them to `made`; return those that are left, and why.

    Email Bison's list decides whether a change is made: a call that got no answer, or an odd one,
    may have made it all the same.
    """
    planned = plan(await reader.webhooks(), url)
    if dry_run:
        made[:] = planned
        return (), None
    calls = WebhookCalls(reader)
    failure: BisonError | None = None
    for change in planned:
        try:
            await _make(calls, change, url)
        except (MalformedAnswer, Unavailable, WorkspaceGone) as error:
            failure = error
        made.append(change)
    left = plan(await reader.webhooks(), url) if planned else []
    if not left:
        return (), None
    return left, failure or KpiError(
        f"{client.workspace}: Email Bison accepted the changes, but its list shows others. Run it "
        "again, and report it if it stays."
    )


async def _make(calls: WebhookCalls, change: Change, url: SecretStr) -> None:
    match change:
        case Change(verb=Verb.CHANGE, hook=Webhook() as hook):
            await calls.replace(hook.id, hook.name or NAME, url, EVENTS)
        case Change(verb=Verb.DELETE, hook=Webhook() as hook):
            await calls.delete(hook.id, hook.url)
        case _:
            await calls.create(NAME, url, EVENTS)
