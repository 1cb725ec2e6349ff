"""`kpi demo`: the whole pipeline at work, against an invented agency."""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import httpx
from pydantic import SecretStr

from kpi_pipeline.business_days import days_between, first_of_previous_month
from kpi_pipeline.cli.clients import update_grid
from kpi_pipeline.cli.console import err, out
from kpi_pipeline.cli.dagster_home import child_environment
from kpi_pipeline.cli.dagster_page import DagsterPage, RunStatus
from kpi_pipeline.cli.database import ready_databases
from kpi_pipeline.cli.processes import Child, require_free_port
from kpi_pipeline.cli.progress import watch_run
from kpi_pipeline.cli.report import SyncReport, print_report
from kpi_pipeline.cli.servers import dagster_servers, sandbox_server
from kpi_pipeline.cli.up import stay_up
from kpi_pipeline.deployment import Deployment, open_deployment
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings, load_settings
from kpi_pipeline.warehouse.clients import import_clients
from kpi_pipeline.warehouse.clients_csv import parse
from kpi_pipeline.warehouse.metric_view import read_metrics
from kpi_pipeline.warehouse.sync_log import read_entries

_CLIENTS = 26
_SANDBOX_CALLS_PER_SECOND = 9.5
_RUN_SECONDS = 600.0
# What a real deployment sets, and the demo must neither use nor touch.
_REAL = ("DATABASE_URL", "DAGSTER_DATABASE_URL", "SECRET_KEY", "BISON_URL", "BISON_MASTER_KEY")


def use_demo_environment(*, required: bool) -> None:
    """Point this process at the demo's own state, away from a configured deployment.

    Raises:
        KpiError: if `required`, and no demo has left anything behind.
    """
    state = load_settings().state_dir / "demo"
    file = _environment_file(state)
    if required and not file.exists():
        raise KpiError("There is no demo to work on yet: run `kpi demo` first.")
    for name in _REAL:
        os.environ.pop(f"KPI_{name}", None)
    os.environ["KPI_STATE_DIR"] = str(state)
    os.environ["KPI_ENV_FILE"] = str(file) if file.exists() and required else ""


def run_demo(settings: Settings, *, once: bool, days: int, port: int | None) -> bool:
    """Run the demo in the state folder of `settings`; return whether every client is done.

    Raises:
        KpiError: if something does not start.
    """
    web_port = settings.web_port if port is None else port
    require_free_port(web_port, "--port or KPI_WEB_PORT")
    with ExitStack() as stack:
        err.print("Starting PostgreSQL and a local Email Bison …")
        settings = stack.enter_context(
            ready_databases(settings.model_copy(update={"web_port": web_port}))
        )
        address, sandbox = stack.enter_context(
            sandbox_server(
                settings,
                child_environment(settings),
                {"clients": _CLIENTS, "calls-per-second": _SANDBOX_CALLS_PER_SECOND},
            )
        )
        settings = _towards(settings, address)
        deployment = stack.enter_context(open_deployment(settings))
        _import_clients(deployment, address, days)
        grid = update_grid(deployment, settings)
        err.print("Starting Dagster …")
        page, children = stack.enter_context(dagster_servers(settings, child_environment(settings)))
        report = _fill(deployment, page, children, grid, days)
        print_report(report, out)
        if not once:
            _print_addresses(page, address)
            stay_up([sandbox, *children])
    return report.complete


def _environment_file(state: Path) -> Path:
    return state / "demo.env"


def _towards(settings: Settings, address: str) -> Settings:
    """The settings for the sandbox at `address`; kept in a file for `kpi --demo`."""
    setup = httpx.get(f"{address}/sandbox/setup", timeout=30).raise_for_status().json()
    key = SecretStr(setup["master_key"])
    file = _environment_file(settings.state_dir)
    file.touch(mode=0o600)
    file.write_text(f"KPI_BISON_URL={address}\nKPI_BISON_MASTER_KEY={key.get_secret_value()}\n")
    return settings.model_copy(
        update={
            "bison_url": address,
            "bison_master_key": key,
            "bison_calls_per_second": _SANDBOX_CALLS_PER_SECOND,
        }
    )


def _import_clients(deployment: Deployment, address: str, days: int) -> None:
    """Import the invented clients; their targets hold for all the days that the demo fills."""
    instance = deployment.settings.bison_instance
    url = f"{address}/sandbox/clients.csv"
    text = httpx.get(url, params={"instance": instance}, timeout=30).raise_for_status().text
    records = parse(text, deployment.instances(), "the sandbox's clients.csv")
    month = first_of_previous_month(deployment.today() - timedelta(days=days))
    with deployment.engine.begin() as connection:
        import_clients(connection, records, targets_from=month, vault=deployment.vault)


def _fill(
    deployment: Deployment,
    page: DagsterPage,
    children: Sequence[Child],
    grid: Sequence[str],
    days: int,
) -> SyncReport:
    """Refresh the registry, then fill the last `days` closed days and today, as runs of Dagster."""
    from kpi_pipeline.partitions import rectangle_tags
    from kpi_pipeline.sync.store import Step

    registry_run = page.launch(["client_registry"], {})
    _wait(page, children, registry_run)
    today = deployment.today()
    dates = days_between(today - timedelta(days=days), today)
    started = time.monotonic()
    run_id = page.launch([step.value for step in Step], rectangle_tags(grid, dates))

    def finished() -> bool:
        return _ended(page, children, run_id, started)

    watch_run(deployment.engine, run_id, len(grid), f"{days} days and today", finished)
    with deployment.engine.connect() as connection:
        return SyncReport(
            entries=read_entries(connection, [run_id]),
            clients=len(grid),
            seconds=time.monotonic() - started,
            date=today,
            rows=read_metrics(connection, today),
        )


def _ended(page: DagsterPage, children: Sequence[Child], run_id: str, started: float) -> bool:
    for child in children:
        child.require_alive()
    if time.monotonic() - started > _RUN_SECONDS:
        raise KpiError(f"The run did not end in time; see {page.run_address(run_id)}.")
    return page.status(run_id) is not RunStatus.UNDER_WAY


def _wait(page: DagsterPage, children: Sequence[Child], run_id: str) -> None:
    started = time.monotonic()
    while not _ended(page, children, run_id, started):
        time.sleep(0.3)


def _print_addresses(page: DagsterPage, sandbox: str) -> None:
    out.print(f"\nDagster's page   {page.url}/assets/client_metrics?view=partitions")
    out.print(f"Email Bison      {sandbox} (invented; `kpi sandbox --help`)")
    out.print("SQL and more     kpi --demo metrics, in another terminal")
