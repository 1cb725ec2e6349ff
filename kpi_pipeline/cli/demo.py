"""`kpi demo`: the whole pipeline, against an invented agency."""

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from kpi_pipeline.cli.common import err, exit_unless, out, print_warning
from kpi_pipeline.cli.progress import watch_run
from kpi_pipeline.cli.report import SyncReport, print_report
from kpi_pipeline.cli.up import stay_up
from kpi_pipeline.db.metrics import read_metrics
from kpi_pipeline.db.sync_log import read_entries
from kpi_pipeline.domain.calendar import business_date, days_between, first_of_previous_month
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import format_instances
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline.services.playground import Playground, playground, register_webhooks
from kpi_pipeline.services.processes import require_free_port
from kpi_pipeline.settings import load_settings
from kpi_pipeline.settings.private_folders import private_state
from kpi_pipeline.settings.webhooks import secret_setting
from kpi_pipeline.sync.scope import KpiAsset

_SANDBOX = {
    "clients": 26,
    "calls-per-second": 9.5,
    "live": True,
    # A positive reply every five seconds or so, for people who watch for a minute.
    "live-pace": 600,
}
_POLL_SECONDS = 0.3
_RUN_SECONDS = 600.0
# Settings of a real installation, which the demo must neither use nor touch.
_REAL = (
    "DATABASE_URL",
    "DAGSTER_DATABASE_URL",
    "SECRET_KEY",
    "BISON_INSTANCES",
    "BISON_TIMEZONE",
    "FIRST_DATE",
    "GATEWAY_HOST",
    "GATEWAY_URL",
    "EVENT_DROP_DIR",
    # An invented agency must send no alert and no heartbeat.
    "ALERT_URLS",
    "HEARTBEAT_URL",
    "HEARTBEAT_URL_CHECKS",
    "DAGSTER_URL",
    # The demo's pages are for this machine alone.
    "DASHBOARD_URL",
    "DASHBOARD_ADDRESS",
    "DASHBOARD_PATH_PREFIX",
    "WEB_PASSWORD",
    "WEB_READER_PASSWORD",
    "WEB_ADDRESS",
    "WEB_HOSTS",
    "WEB_PATH_PREFIX",
    "WEB_PROXIES",
    "WEB_USER_HEADER",
)


def run(
    once: Annotated[
        bool, typer.Option("--once", help="Stop after the report; fail if any client failed.")
    ] = False,
    days: Annotated[int, typer.Option(min=1, max=300, help="Closed days to fill.")] = 35,
    port: Annotated[
        int | None, typer.Option(help="Port of Dagster's page; unset: KPI_WEB_PORT.")
    ] = None,
) -> None:
    """Run the whole pipeline against an invented agency of 26 clients.

    Starts PostgreSQL, a local Email Bison and Dagster, imports the clients, fills the last 35 days
    and today with a Dagster run, and stays up until Ctrl-C. Everything is under
    KPI_STATE_DIR/demo: a configured database or Email Bison is not touched.
    """
    use_demo_environment(required=False)
    settings = load_settings()
    web_port = settings.web_port if port is None else port
    require_free_port(web_port, "--port or KPI_WEB_PORT")
    require_free_port(settings.dashboard_port, "KPI_DASHBOARD_PORT")
    require_free_port(settings.gateway_port, "KPI_GATEWAY_PORT")
    if warning := private_state(settings.state_dir):
        print_warning(warning)
    settings = settings.model_copy(update={"web_port": web_port})
    # The targets hold for all days that the demo fills.
    today = business_date(utc_now(), settings.day_zone)
    targets_from = first_of_previous_month(today - timedelta(days=days))
    with playground(
        settings,
        _SANDBOX,
        targets_from,
        takes_webhooks=True,
        has_dashboard=not once,
        say=err.print,
    ) as play:
        _write_environment_file(play)
        register_webhooks(play)
        report = _fill(play, days)
        print_report(report, out)
        if not once:
            _print_addresses(play)
            stay_up("kpi demo", play.app.settings, play.children, play.app, {})
    exit_unless(report.complete)


def use_demo_environment(*, required: bool) -> None:
    """Point this process at the demo's own state, away from a configured installation.

    Raises:
        KpiError: if `required`, and there is no demo's database yet.
    """
    state = load_settings().state_dir / "demo"
    file = _environment_file(state)
    if required and not file.exists():
        raise KpiError("There is no demo to work on yet: run `kpi demo` first.")
    secrets = [name for name in os.environ if name.startswith("KPI_WEBHOOK_SECRET_")]
    for name in [*(f"KPI_{it}" for it in _REAL), *secrets]:
        os.environ.pop(name, None)
    os.environ["KPI_STATE_DIR"] = str(state)
    os.environ["KPI_ENV_FILE"] = str(file) if file.exists() and required else ""


def _environment_file(state: Path) -> Path:
    return state / "demo.env"


def _write_environment_file(play: Playground) -> None:
    """Write the file for `kpi --demo`: the sandbox, its zone, the gateway and invented secrets."""
    settings = play.app.settings
    file = _environment_file(settings.state_dir)
    file.touch(mode=0o600)
    file.write_text(
        f"KPI_BISON_INSTANCES={format_instances(settings.bison_instances)}\n"
        f"KPI_BISON_TIMEZONE={settings.bison_timezone or ''}\n"
        f"KPI_GATEWAY_URL={play.gateway or ''}\n"
        + "".join(
            f"{secret_setting(name)}={secret.get_secret_value()}\n"
            for name, secret in settings.webhook_secret.items()
        )
    )


def _fill(play: Playground, days: int) -> SyncReport:
    """Refresh the registry, then fill the last `days` closed days and today, with Dagster runs."""
    # Imported late, as it imports Dagster.
    from kpi_pipeline.orchestration.partitions import block_tags

    started = time.monotonic()
    registry_run = play.page.launch(["client_registry"], {})
    while not _ended(play, registry_run, started):
        time.sleep(_POLL_SECONDS)
    today = play.app.today()
    dates = days_between(today - timedelta(days=days), today)
    started = time.monotonic()
    run_id = play.page.launch([asset.value for asset in KpiAsset], block_tags(play.grid, dates))
    watch_run(
        play.app.engine,
        run_id,
        len(play.grid),
        f"{days} days and today",
        lambda: _ended(play, run_id, started),
    )
    with play.app.engine.connect() as connection:
        return SyncReport(
            entries=read_entries(connection, [run_id]),
            clients=len(play.grid),
            seconds=time.monotonic() - started,
            date=today,
            rows=read_metrics(connection, today),
        )


def _ended(play: Playground, run_id: str, started: float) -> bool:
    for child in play.children:
        child.require_alive()
    if time.monotonic() - started > _RUN_SECONDS:
        raise KpiError(f"The run did not end in time; see {play.page.run_address(run_id)}.")
    return play.page.status(run_id) is not RunStatus.UNDER_WAY


def _print_addresses(play: Playground) -> None:
    out.print(f"\nThe dashboard    {play.dashboard}")
    out.print(f"Dagster's page   {play.page.url}/assets/client_metrics?view=partitions")
    out.print(
        f"Webhooks         {play.gateway}/webhooks/bison/… (a positive reply every few seconds)",
        soft_wrap=True,
    )
    out.print(f"Email Bison      {play.sandbox} (invented; `kpi sandbox --help`)")
    out.print("The numbers      `kpi --demo metrics`, in another terminal")
