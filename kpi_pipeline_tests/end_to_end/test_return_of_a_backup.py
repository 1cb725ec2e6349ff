"""A whole installation is lost, and comes back on another machine and server from its dump."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from pydantic import SecretStr

from kpi_pipeline.app import open_app
from kpi_pipeline.db.registry.api_keys import stored_keys
from kpi_pipeline.db.registry.clients import active_clients
from kpi_pipeline.db.registry.vault import new_secret_key
from kpi_pipeline.db.tables import client_metrics, clients, raw_bison_stats, webhook_events
from kpi_pipeline.instances import InstanceSetting, format_instances
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.services.dagster_home import dagster_instance
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.services.servers import sandbox_server
from kpi_pipeline.settings import Settings, load_settings
from kpi_pipeline_tests.agency import ASSETS
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver
from kpi_pipeline_tests.cli.running import (
    PASSWORD,
    address,
    calm_zone,
    days_ago,
    rows_of,
    wait_until,
)
from kpi_pipeline_tests.databases import administer
from kpi_pipeline_tests.end_to_end.up import SECRET, Up
from kpi_pipeline_tests.installed_postgres import installed_postgres
from kpi_pipeline_tests.pgbouncer import pooling

pytestmark = [pytest.mark.long, pytest.mark.weekly]

_KPI = [sys.executable, "-m", "kpi_pipeline.cli.main"]


def kpi(*words: str) -> str:
    done = subprocess.run([*_KPI, *words], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def up(state: Path) -> Iterator[Up]:
    """`kpi up` with the environment of this process."""
    output = state.parent / f"output of {state.name}"
    with output.open("w") as file:
        process = subprocess.Popen([*_KPI, "up"], stdout=file, stderr=subprocess.STDOUT)
    try:
        yield Up(process, state, output)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=180) == 0, output.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def bison(state: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a sandbox of four clients, which the environment has as the real Bison."""
    base = Settings(state_dir=state.parent / "sandbox")
    options = {"clients": 4, "calls-per-second": 0, "latency": 0}
    url, sandbox = sandbox_server(base, dict(os.environ), options)
    with sandbox as running:
        running.await_answer()
        master = SecretStr(httpx.get(f"{url}/sandbox/setup", timeout=30).json()["master_key"])
        for name, value in {
            "KPI_BISON_INSTANCES": format_instances([InstanceSetting("main", url, master)]),
            "KPI_SECRET_KEY": new_secret_key(),
            "KPI_TIMEZONE": calm_zone().key,
            "KPI_WEB_PORT": "0",
            "KPI_GATEWAY_PORT": "0",
            "KPI_WEBHOOK_SECRET_MAIN": SECRET,
            "KPI_ALERT_URLS": receiver.url.replace("http://", "json://"),
        }.items():
            monkeypatch.setenv(name, value)
        yield url


def contents() -> dict[str, Any]:
    """Rows, the green partitions of each asset, and API keys, of the settings' installation."""
    with ready_databases(load_settings()) as settings, open_app(settings) as app:
        with dagster_instance(settings) as instance:
            grid = [set(instance.get_materialized_partitions(dg.AssetKey(it))) for it in ASSETS]
            runs = [it.run_id for it in instance.get_runs()]
        with app.engine.connect() as connection:
            workspaces = [it.workspace for it in active_clients(connection)]
            keys = stored_keys(connection, workspaces, app.vault)
        tables = (clients, raw_bison_stats, client_metrics, webhook_events)
        return {
            "rows": rows_of(app.engine, *tables),
            "grid": grid,
            "runs": runs,
            "keys": {name: it.secret.get_secret_value() for name, it in keys.items()},
        }


def test_an_installation_comes_back_from_its_dump_and_the_doctor_finds_nothing(
    state: Path, bison: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = state.parent / "clients.csv"
    given = httpx.get(f"{bison}/sandbox/clients.csv?instance=main", timeout=30).text
    rows = list(csv.DictReader(given.splitlines()))
    with table.open("w", newline="") as target:
        writer = csv.DictWriter(target, list(rows[0]))
        writer.writeheader()
        # The sandbox leaves one client without a target, which the doctor would mention.
        writer.writerows({**row, "monthly_kpi_target": "60"} for row in rows)
    monkeypatch.setenv("KPI_STATE_DIR", str(state))
    kpi("clients", "import", str(table))
    kpi("keys", "create-missing")
    workspaces = [row["workspace"] for row in contents()["rows"]["clients"]]
    dates = [days_ago(days) for days in (2, 1, 0)]
    file = state.parent / "dump.zip"
    with up(state) as first:
        run = first.page.launch(ASSETS, block_tags(workspaces, dates))
        wait_until(
            lambda: first.page.status(run) is not RunStatus.UNDER_WAY, "the run", 200, every=0.5
        )
        assert first.page.status(run) is RunStatus.SUCCESS
        # Nothing has to stop for a dump.
        kpi("db", "dump", str(file))
    kpi("db", "dump", str(file))
    before = contents()
    assert run in before["runs"]
    assert len(before["keys"]) == 4

    shutil.rmtree(state)
    with installed_postgres() as server, pooling(server, auth_type="scram-sha-256") as pooler:
        administer(server, f"CREATE ROLE plain LOGIN PASSWORD '{PASSWORD}'")
        for name in ("kpi", "kpi_dagster"):
            administer(server, f"CREATE DATABASE {name} OWNER plain")
        elsewhere = state.parent / "another"
        monkeypatch.setenv("KPI_STATE_DIR", str(elsewhere))
        monkeypatch.setenv("KPI_DATABASE_URL", address(pooler.url("kpi", "plain")))
        kpi("db", "restore", str(file))
        assert contents() == before

        with up(elsewhere):
            found: list[Mapping[str, Any]] = []

            def is_well() -> bool:
                done = subprocess.run(
                    [*_KPI, "doctor", "--json"], capture_output=True, text=True, check=False
                )
                found[:] = [
                    it
                    for it in json.loads(done.stdout)["findings"]
                    if it["verdict"] == "problem"
                    # The sandbox invents numbers that are no error, and not plausible either.
                    or (it["verdict"] == "warning" and it["check"] != "checks")
                ]
                return not found

            # A daemon's first heartbeats and ticks take a while.
            wait_until(is_well, "a doctor who finds nothing", 400, every=5, details=lambda: found)
