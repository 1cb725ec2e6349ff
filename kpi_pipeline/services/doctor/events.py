"""Checks of the ways in for events: webhooks, our own endpoint, and the event feed."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial

from kpi_pipeline.bison import BisonClient, BisonError, WorkspaceReader
from kpi_pipeline.bison.events import read_events
from kpi_pipeline.db.events.feed import read_feed_states
from kpi_pipeline.db.registry.clients import Client
from kpi_pipeline.domain.formatting import counted, listed
from kpi_pipeline.errors import KpiError
from kpi_pipeline.parts import read_parts
from kpi_pipeline.services.doctor.bison import NOT_ANSWERING, of_each_client
from kpi_pipeline.services.doctor.examination import Examination
from kpi_pipeline.services.doctor.finding import (
    Finding,
    good,
    not_checked,
    of_bison,
    problem,
    warning,
)
from kpi_pipeline.settings.webhooks import (
    has_webhooks,
    secret_setting,
    shown_url,
    unknown_instances,
    webhook_url,
    without_secret,
)
from kpi_pipeline.sync.feed_due import LEADS
from kpi_pipeline.sync.identity import workspace_ref
from kpi_pipeline.sync.webhook_probe import send_test_event
from kpi_pipeline.sync.webhooks import (
    WebhooksOutcome,
    apply_plans,
    find_problems,
    plan_registration,
)

_NOT_FOUND = 404
# Its key among the parts of `kpi up`.
_GATEWAY = "gateway"
# One page of the feed tells whether it can be read.
_ROWS, _SINCE = 1, timedelta(hours=1)
# The checks after which a client can't be read.
_UNREADABLE = ("stored-keys", "clients", "workspaces", "keys", "bison")


def webhooks(examination: Examination) -> Iterator[Finding]:
    """The workspace of each client has one webhook, to the gateway's address."""
    settings = examination.settings
    if settings.bison_instances and (unknown := unknown_instances(settings)) is not None:
        yield problem(unknown)
    if settings.gateway_url is None or not settings.webhook_secret:
        yield _without_webhooks(examination)
        return
    for name in without_secret(settings):
        yield warning(
            f"{name} has no webhook secret, so no event of its clients is received at once.",
            f"Set {secret_setting(name)} to the output of `kpi webhook-secret`.",
        )
    readable = _readable(examination)
    if not readable:
        yield not_checked(NOT_ANSWERING)
        return
    outcomes = asyncio.run(of_each_client(examination.app, readable, partial(_read, examination)))
    yield from _of_webhooks(examination, outcomes)


def _without_webhooks(examination: Examination) -> Finding:
    settings = examination.settings
    lacks = "KPI_GATEWAY_URL" if settings.gateway_url is None else "KPI_WEBHOOK_SECRET_NAME"
    text = f"No webhook is expected, as {lacks} is not set."
    if settings.event_feed_minutes is None:
        remedy = (
            "Set it, or KPI_EVENT_FEED_MINUTES: until then a lead counts with the next refresh."
        )
        return warning(text, remedy)
    return good(f"{text} The event feed brings leads every {settings.event_feed_minutes} min.")


async def _read(examination: Examination, bison: BisonClient, client: Client) -> WebhooksOutcome:
    """What is wrong with a client's webhooks; unlike `verify_client`, it stores nothing."""
    key = examination.keys.get(client.workspace)
    try:
        reading = await bison.read_as(
            workspace_ref(client), key.secret if key else None, WorkspaceReader.webhooks
        )
    except BisonError as error:
        return WebhooksOutcome(client, error=str(error))
    url = webhook_url(examination.settings, client.instance)
    return WebhooksOutcome(client, problems=find_problems(reading.value, url))


def _of_webhooks(
    examination: Examination, outcomes: Sequence[WebhooksOutcome]
) -> Iterator[Finding]:
    by_problem: dict[str, list[Client]] = {}
    for it in sorted(outcomes, key=lambda it: it.client.workspace):
        for text in it.problems:
            # Numbers of webhooks differ from client to client.
            kind = "missing" if text.startswith("missing") else text.partition(":")[0]
            by_problem.setdefault(kind, []).append(it.client)
        if it.error is not None:
            yield warning(f"Its webhooks could not be read: {it.error}", "", [it.client.workspace])
    for kind, clients in by_problem.items():
        names = [it.workspace for it in clients]
        say = problem if kind == "missing" else warning
        command = "`kpi webhooks register" + (" --delete-dead`" if kind == "dead" else "`")
        yield say(
            f"Webhooks are {kind} in {counted(len(names), 'workspace')}: {listed(names)}."
            if kind != "foreign events"
            else f"Webhooks send events that are not counted in {listed(names)}.",
            f"{command} corrects it.",
            names,
            partial(_register, examination, clients, delete_dead=kind == "dead"),
        )
    good_ones = sum(not it.problems and it.error is None for it in outcomes)
    if good_ones == len(outcomes):
        where = shown_url(examination.settings)
        yield good(f"{counted(good_ones, 'workspace')} with one webhook each, to {where}.")


def _register(examination: Examination, clients: Sequence[Client], *, delete_dead: bool) -> str:
    plan = partial(plan_registration, delete_dead=delete_dead)
    outcomes = asyncio.run(apply_plans(examination.app, clients, plan, dry_run=False))
    errors = [it.error for it in outcomes if it.error is not None]
    if errors:
        raise KpiError(errors[0])
    return f"Webhooks are registered in {counted(len(outcomes), 'workspace')}."


def endpoint(examination: Examination) -> Iterator[Finding]:
    """A test event that Email Bison sends comes back to the gateway and is stored."""
    settings = examination.settings
    parts = read_parts(settings.state_dir)
    if parts is not None and parts.is_supervised and _GATEWAY in {it.key for it in parts.given_up}:
        yield not_checked("The gateway does not run, as `parts` says.")
        return
    if not any(has_webhooks(settings, it.name) for it in settings.bison_instances):
        yield not_checked("No webhook is expected.")
        return
    chosen = [
        it for it in _one_of_each_instance(examination) if has_webhooks(settings, it.instance)
    ]
    if not chosen:
        yield not_checked(NOT_ANSWERING)
        return
    for client in chosen:
        try:
            seconds = send_test_event(examination.app, client)
        except BisonError as error:
            yield of_bison(error)
        except KpiError as error:
            yield problem(str(error))
        else:
            where = shown_url(settings)
            yield good(
                f"A test event of {client.instance} to {where} was stored in {seconds:.1f} s."
            )


def feed(examination: Examination) -> Iterator[Finding]:
    """The event feed of each instance can be read."""
    minutes = examination.settings.event_feed_minutes
    if minutes is None:
        yield good("The event feed is off (KPI_EVENT_FEED_MINUTES).")
        return
    chosen = _one_of_each_instance(examination)
    if not chosen:
        yield not_checked(NOT_ANSWERING)
        return
    for client in chosen:
        found = asyncio.run(_of_feed(examination, client))
        yield found
        if not found.is_bad:
            yield from _failed_readings(examination, client.instance)


async def _of_feed(examination: Examination, client: Client) -> Finding:
    app, name = examination.app, client.instance
    today, now = app.today(), app.now()
    key = examination.keys.get(client.workspace)

    async def read(reader: WorkspaceReader) -> None:
        await read_events(
            reader.session, [LEADS], today - timedelta(days=1), today, since=now - _SINCE,
            most_rows=_ROWS,
        )  # fmt: skip

    try:
        async with app.bison_client(app.instance(name)) as bison:
            await bison.read_as(workspace_ref(client), key.secret if key else None, read)
    except BisonError as error:
        if error.status != _NOT_FOUND:
            return of_bison(error)
        text = f"{name} has no event feed."
        if has_webhooks(examination.settings, name):
            return good(f"{text} Its events come by webhook alone.")
        return warning(text, "Register webhooks: until then a lead counts with the next refresh.")
    return good(f"The event feed of {name} can be read.")


def _failed_readings(examination: Examination, instance: str) -> Iterator[Finding]:
    """The clients of the instance whose feed could not be read at the last poll."""
    of_instance = {it.workspace for it in _readable(examination) if it.instance == instance}
    with examination.app.engine.connect() as connection:
        states = read_feed_states(connection).values()
    failed = {
        it.workspace: it.problem for it in states if it.problem and it.workspace in of_instance
    }
    for workspace, text in sorted(failed.items()):
        rest = text.removeprefix(f"{workspace}: ")
        yield warning(
            f"The last reading of the feed of {workspace} failed: {rest}", "", [workspace]
        )


def _one_of_each_instance(examination: Examination) -> list[Client]:
    """A readable client of each instance, one with a key of its own if there is any."""
    ordered = sorted(_readable(examination), key=lambda it: it.has_key)
    return list({it.instance: it for it in ordered}.values())


def _readable(examination: Examination) -> list[Client]:
    """The active clients with whom nothing was found wrong, of instances that answer."""
    left_out = examination.named(_UNREADABLE)
    instances = examination.app.instances()
    return [
        it
        for it in examination.served(examination.clients)
        if it.workspace not in left_out
        and (it.workspace in examination.keys or instances[it.instance].master_key is not None)
    ]
