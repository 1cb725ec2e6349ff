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

from kpi_pipeline.cli.clients import update_grid
from kpi_pipeline.cli.console import err
from kpi_pipeline.cli.dagster_home import child_environment
from kpi_pipeline.cli.dagster_page import DagsterPage
from kpi_pipeline.cli.database import ready_databases
from kpi_pipeline.cli.processes import Child
from kpi_pipeline.cli.servers import dagster_servers, gateway_server, sandbox_server
from kpi_pipeline.deployment import Deployment, open_deployment
from kpi_pipeline.instances import InstanceSetting
from kpi_pipeline.settings import Settings
from kpi_pipeline.warehouse.clients import import_clients
from kpi_pipeline.warehouse.clients_csv import parse

_INSTANCE = "main"


@dataclass(frozen=True)
class Playground:
    """What is running, and where. `grid` holds the clients' keys in the order of Dagster's grid.

    `gateway` is the address of the gateway, if there is one.
    """

    deployment: Deployment
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
        deployment = stack.enter_context(open_deployment(settings))
        _import_clients(deployment, address, targets_from)
        grid = update_grid(deployment, settings)
        environment = child_environment(settings)
        children = [sandbox]
        gateway: str | None = None
        if takes_webhooks:
            gateway, child = stack.enter_context(gateway_server(settings, environment))
            children.append(child)
        err.print("Starting Dagster …")
        page, dagster = stack.enter_context(dagster_servers(settings, environment))
        yield Playground(deployment, grid, address, gateway, page, [*children, *dagster])


def _import_clients(deployment: Deployment, address: str, targets_from: date) -> None:
    params = {"instance": _INSTANCE}
    answer = httpx.get(f"{address}/sandbox/clients.csv", params=params, timeout=30)
    records = parse(
        answer.raise_for_status().text, deployment.instances(), "the sandbox's clients.csv"
    )
    with deployment.engine.begin() as connection:
        import_clients(connection, records, targets_from=targets_from, vault=deployment.vault)
