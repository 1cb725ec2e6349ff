"""The pipeline against an invented agency: sandbox and Dagster, gateway and dashboard if wanted.

Used by the demo, the benchmarks and the end-to-end tests.
"""

import asyncio
import csv
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import date
from itertools import repeat

import httpx
from pydantic import SecretStr

from kpi_pipeline.app import AppContext, open_app
from kpi_pipeline.db.registry.client_import import import_clients
from kpi_pipeline.db.registry.clients import active_clients
from kpi_pipeline.db.registry.clients_csv import parse
from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import InstanceSetting
from kpi_pipeline.services.dagster_home import child_environment, update_grid
from kpi_pipeline.services.dagster_page import DagsterPage
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.services.processes import Child, free_port
from kpi_pipeline.services.running_dagster import one_daemon
from kpi_pipeline.services.servers import (
    dagster_servers,
    dashboard_server,
    gateway_server,
    sandbox_server,
    started_in_order,
)
from kpi_pipeline.settings import Settings
from kpi_pipeline.settings.webhooks import webhook_url
from kpi_pipeline.sync.webhooks import EVENTS, NAME, apply_plans, plan_registration

_INSTANCE = "main"
# As hostile as the real webhooks: late, out of order, in either case, sometimes twice.
_VARIANTS = {
    "event_casing": "mixed",
    "delivery_seconds": 0.5,
    "delivery_repeats": 0.1,
    "delivery_retry_seconds": 5,
}
_REGISTRATIONS_AT_ONCE = 8
_TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Playground:
    """What is running, and its addresses.

    `grid` holds the workspace keys in the order of Dagster's partitions; `gateway` is the address
    of the gateway, and `dashboard` that of the dashboard, if there is one.
    """

    app: AppContext
    grid: Sequence[str]
    sandbox: str
    gateway: str | None
    dashboard: str | None
    page: DagsterPage
    children: Sequence[Child]


@contextmanager
def playground(
    settings: Settings,
    sandbox_options: Mapping[str, object],
    targets_from: date,
    *,
    takes_webhooks: bool = False,
    has_dashboard: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Playground]:
    """Start everything and import the sandbox's clients; stop everything when the block ends.

    `sandbox_options` are those of `kpi sandbox`, by name; calls go at the sandbox's rate. With
    `takes_webhooks` there is a gateway with a secret of its own, and no webhook is registered yet.
    `say` gets sentences about what takes time.

    Raises:
        KpiError: if something does not start.
    """
    with ExitStack() as stack:
        say("Starting PostgreSQL and a local Email Bison …")
        settings = stack.enter_context(ready_databases(settings))
        claim = stack.enter_context(one_daemon(settings, "kpi demo", say))
        address, sandbox = sandbox_server(settings, child_environment(settings), sandbox_options)
        started_in_order(stack, [sandbox])
        setup = httpx.get(f"{address}/sandbox/setup", timeout=30).raise_for_status().json()
        settings = settings.model_copy(
            update={
                "bison_instances": (
                    InstanceSetting(_INSTANCE, address, SecretStr(setup["master_key"])),
                ),
                "bison_calls_per_second": sandbox_options["calls-per-second"],
                # Pages link to each other.
                "web_port": settings.web_port or free_port(),
                # `kpi sandbox` bounds its days by the same zone.
                "bison_timezone": settings.day_zone,
                "webhook_secret": {_INSTANCE: SecretStr(secrets.token_urlsafe(32))}
                if takes_webhooks
                else {},
            }
        )
        app = stack.enter_context(open_app(settings))
        _import_clients(app, address, targets_from)
        grid = update_grid(app, settings)
        environment = child_environment(settings)
        children = [sandbox]
        gateway: str | None = None
        if takes_webhooks:
            gateway, child = gateway_server(settings, environment)
            children.append(child)
        dashboard: str | None = None
        if has_dashboard:
            dashboard, child = dashboard_server(settings, environment)
            children.append(child)
        say("Starting Dagster …")
        page, dagster = stack.enter_context(dagster_servers(settings, environment, claim))
        children += dagster
        started_in_order(stack, children[1:])
        yield Playground(app, grid, address, gateway, dashboard, page, children)


def register_webhooks(play: Playground) -> None:
    """Register webhooks, with which the sandbox sends its events to the gateway.

    Each workspace has a webhook, registered by Email Bison's own call, and the whole instance has a
    parent hook: most events arrive twice, as in production.
    """
    settings = play.app.settings.model_copy(update={"gateway_url": play.gateway})
    app = replace(play.app, settings=settings)
    url = webhook_url(settings, _INSTANCE)
    with httpx.Client(base_url=play.sandbox, timeout=_TIMEOUT_SECONDS) as sandbox:
        sandbox.patch("/sandbox/variants", json=_VARIANTS).raise_for_status()
        hook = {"url": url.get_secret_value()}
        sandbox.post("/sandbox/parent-hook", json=hook).raise_for_status()
        table = sandbox.get("/sandbox/clients.csv").raise_for_status().text
        api_keys = [row["api_key"] for row in csv.DictReader(table.splitlines()) if row["api_key"]]
        with ThreadPoolExecutor(_REGISTRATIONS_AT_ONCE) as threads:
            list(threads.map(_register, repeat(sandbox), api_keys, repeat(hook["url"])))
    # The others have the master key, which a call of the pipeline may switch at any moment.
    with app.engine.connect() as connection:
        keyless = [client for client in active_clients(connection) if not client.has_key]
    outcomes = asyncio.run(apply_plans(app, keyless, plan_registration, dry_run=False))
    if errors := [outcome.error for outcome in outcomes if outcome.error is not None]:
        raise KpiError("\n".join(errors))


def _register(sandbox: httpx.Client, api_key: str, url: str) -> None:
    sandbox.post(
        "/api/webhook-url",
        headers={"Authorization": f"Bearer {api_key}"},
        json={"name": NAME, "url": url, "events": EVENTS},
    ).raise_for_status()


def _import_clients(app: AppContext, address: str, targets_from: date) -> None:
    params = {"instance": _INSTANCE}
    answer = httpx.get(f"{address}/sandbox/clients.csv", params=params, timeout=30)
    records = parse(answer.raise_for_status().text, app.instances(), "the sandbox's clients.csv")
    with app.engine.begin() as connection:
        import_clients(
            connection, records, targets_from=targets_from, vault=app.vault, zone=app.day_zone
        )
