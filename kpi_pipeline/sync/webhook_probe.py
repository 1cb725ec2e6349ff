"""Has Email Bison send a test event, and waits for it in the inbox: the whole way of a webhook."""

import asyncio
from datetime import datetime
from secrets import token_hex
from time import monotonic, sleep

import httpx
from pydantic import SecretStr

from kpi_pipeline.app import AppContext
from kpi_pipeline.bison import WorkspaceReader
from kpi_pipeline.bison.webhooks import WebhookCalls
from kpi_pipeline.db.events.inbox import read_receipts
from kpi_pipeline.db.events.stored import StoredEvent, read_newest
from kpi_pipeline.db.registry.clients import Client
from kpi_pipeline.domain.events.event import EventSource, EventStatus
from kpi_pipeline.domain.events.kinds import TEST_MARKER, key_of_test
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings.webhooks import WEBHOOK_PATH, secret_setting, webhook_url
from kpi_pipeline.sync.identity import read_client

EVENT_TYPE = "lead_interested"
WAIT_SECONDS = 30.0

_PAUSE_SECONDS = 0.5
_PROBE_SECONDS = 10.0
_MOST_UNMARKED = 50


def send_test_event(app: AppContext, client: Client) -> float:
    """Have Email Bison send a test event to the gateway; return the seconds until it was stored.

    The call is made in the client's workspace. The URL has a mark of its own, by which the gateway
    knows the event: it is stored as a test, and counts nothing.

    Raises:
        BisonError: if the call fails.
        KpiError: if a setting is missing, or the event does not arrive within WAIT_SECONDS; the
            message says where it was lost, as far as can be seen from here.
    """
    url, name = webhook_url(app.settings, client.instance), token_hex(8)
    key = key_of_test(client.instance, name)
    since, started = app.now(), monotonic()
    asyncio.run(_send(app, client, SecretStr(f"{url.get_secret_value()}?{TEST_MARKER}={name}")))
    while True:
        with app.engine.connect() as connection:
            arrived = key in read_receipts(connection, [key])
        seconds = monotonic() - started
        if arrived:
            return seconds
        if seconds > WAIT_SECONDS:
            raise KpiError(_why_not(app, client.instance, since))
        sleep(_PAUSE_SECONDS)


async def _send(app: AppContext, client: Client, url: SecretStr) -> None:
    async def send(reader: WorkspaceReader) -> None:
        await WebhookCalls(reader).send_test(EVENT_TYPE, url)

    async with app.bison_client(app.instance(client.instance)) as bison:
        await read_client(app, bison, client, send)


def _unmarked(app: AppContext, instance: str, since: datetime) -> StoredEvent | None:
    """An event that may be the test without its mark. Those of clients have other statuses."""
    statuses = (EventStatus.INVALID, EventStatus.UNMATCHED, EventStatus.TEST)
    with app.engine.connect() as connection:
        _, newest = read_newest(connection, _MOST_UNMARKED, since=since, statuses=statuses)
    of_instance = (it for it in newest if it.instance == instance)
    return next((it for it in of_instance if it.source is EventSource.WEBHOOK), None)


def _why_not(app: AppContext, instance: str, since: datetime) -> str:
    """Where the test event was lost, and what to do."""
    if found := _unmarked(app, instance, since):
        return (
            f"{instance}: no event with the mark of this test arrived, but one with the status "
            f"{found.status}: {found.reason} `kpi events list` shows it."
        )
    lost = f"{instance}: Email Bison accepted the test event, but within {WAIT_SECONDS:g} s "
    gateway = app.settings.gateway_url
    # The last part is no secret: the gateway answers 405 to any GET below this path.
    address = f"{gateway}{WEBHOOK_PATH}/probe"
    try:
        status = httpx.get(address, timeout=_PROBE_SECONDS, follow_redirects=False).status_code
    except httpx.HTTPError as error:
        return (
            f"{lost}nothing arrived, and {gateway} does not answer here either "
            f"({type(error).__name__}). Check that the gateway and the proxy in front of it run, "
            "and KPI_GATEWAY_URL."
        )
    if status == httpx.codes.METHOD_NOT_ALLOWED:
        return (
            f"{lost}nothing arrived in this database. A gateway answers at {gateway}: check that "
            f"it has the same {secret_setting(instance)} and KPI_DATABASE_URL as this command "
            "(restart it), and that Email Bison can reach it from its network."
        )
    if 300 <= status < 400:
        return (
            f"{lost}nothing arrived: {gateway} answers with a redirect ({status}), which webhooks "
            "do not follow. Set KPI_GATEWAY_URL to the address that it leads to."
        )
    return (
        f"{lost}nothing arrived: what answers at {gateway} is not the gateway (status {status}). "
        f"Check that the proxy forwards {WEBHOOK_PATH}/ to a gateway that runs, and "
        "KPI_GATEWAY_URL."
    )
