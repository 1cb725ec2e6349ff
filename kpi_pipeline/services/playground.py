"""The pipeline on a stage of its own: an invented agency, Dagster's page and daemon, the gateway.

The demo, the benchmarks and the end-to-end tests all play on it.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date

import httpx
from pydantic import SecretStr

from kpi_pipeline.app import AppContext, open_app
from kpi_pipeline.db.clients import import_clients
from kpi_pipeline.db.clients_csv import parse
from kpi_pipeline.instances import InstanceSetting
from kpi_pipeline.services.console import err
from kpi_pipeline.services.dagster_home import child_environment, update_grid
from kpi_pipeline.services.dagster_page import DagsterPage
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.services.processes import Child
from kpi_pipeline.services.servers import dagster_servers, gateway_server, sandbox_server
from kpi_pipeline.settings import Settings

_INSTANCE = "main"


@dataclass(frozen=True)
class Playground:
    """What is running, and where. `grid` holds the clients' keys in the order of Dagster's grid.

    `gateway` is the address of the gateway, if there is one.
    """

    app: AppContext
    grid: Sequence[str]
    sandbox: str
    gateway: str | None
    page: DagsterPage
    children: Sequence[Child]


@contextmanager
def playground(
    settings: Settings,
    sandbox_options: Mapping[str, object],
    targets_from: date,
    *,
    takes_webhooks: bool = False,
) -> Iterator[Playground]:
    """Start everything and import the sandbox's clients; stop everything when the block ends.

    `sandbox_options` are those of `kpi sandbox`, by name; calls are paced at the sandbox's rate.
    With `takes_webhooks` there is a gateway and a secret of its own; nobody knows of it yet.

    Raises:
        KpiError: if something does not start.
    """
    with ExitStack() as stack:
        err.print("Starting PostgreSQL and a local Email Bison …")
        settings = stack.enter_context(ready_databases(settings))
        address, sandbox = stack.enter_context(
            sandbox_server(settings, child_environment(settings), sandbox_options)
        )
        setup = httpx.get(f"{address}/sandbox/setup", timeout=30).raise_for_status().json()
        settings = settings.model_copy(
            update={
                "bison_instances": (
                    InstanceSetting(_INSTANCE, address, SecretStr(setup["master_key"])),
                ),
                "bison_calls_per_second": sandbox_options["calls-per-second"],
                # `kpi sandbox` bounds its days by the business's zone.
                "bison_timezone": settings.timezone,
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
            gateway, child = stack.enter_context(gateway_server(settings, environment))
            children.append(child)
        err.print("Starting Dagster …")
        page, dagster = stack.enter_context(dagster_servers(settings, environment))
        yield Playground(app, grid, address, gateway, page, [*children, *dagster])


def _import_clients(app: AppContext, address: str, targets_from: date) -> None:
    params = {"instance": _INSTANCE}
    answer = httpx.get(f"{address}/sandbox/clients.csv", params=params, timeout=30)
    records = parse(answer.raise_for_status().text, app.instances(), "the sandbox's clients.csv")
    with app.engine.begin() as connection:
        import_clients(connection, records, targets_from=targets_from, vault=app.vault)
