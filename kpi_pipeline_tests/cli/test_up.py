"""`kpi up` beside clients whose instance is not configured, and beside another one."""

import contextlib
import re
import signal
import socket
import subprocess
from pathlib import Path

import psutil
import pytest
from sqlalchemy import URL

from kpi_pipeline.app import AppContext
from kpi_pipeline.cli.up import missing_instances
from kpi_pipeline_tests.cli.running import Kpi, ended, kpi_in_a_process, written
from kpi_pipeline_tests.db.stocked import imported, record

WITHOUT = "Some active clients cannot be fetched until KPI_BISON_INSTANCES contains their instance"


def test_there_is_no_warning_while_every_active_client_has_its_instance(
    app: AppContext,
) -> None:
    retired = record(2, "Lark Mill", instance="west", active=False)
    imported(app.engine, app.vault, record(1, "Heron Tide"), retired)
    assert missing_instances(app) is None


def test_instances_that_are_missing_are_named_with_up_to_five_clients_each(
    app: AppContext,
) -> None:
    west = [record(number, f"Client {number}", instance="west") for number in range(1, 7)]
    emea = [record(number, f"Harbor {number}", instance="emea") for number in range(1, 6)]
    imported(app.engine, app.vault, record(1, "Heron Tide"), *west, *emea)
    assert missing_instances(app) == (
        f"{WITHOUT}: emea (harbor-1, harbor-2, harbor-3, harbor-4, harbor-5); "
        "west (client-1, client-2, client-3, client-4, client-5 and 1 more)."
    )


@pytest.mark.parametrize("variable", ["KPI_DASHBOARD_ADDRESS", "KPI_WEB_ADDRESS"])
def test_up_shows_no_page_to_other_machines_without_a_login(
    kpi: Kpi, configured: URL, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main http://127.0.0.1:9")
    monkeypatch.setenv("KPI_WEB_PORT", "0")
    monkeypatch.setenv(variable, "0.0.0.0")
    assert kpi("up").error() == (
        f"{variable}: other machines reach the page at 0.0.0.0, so it needs a login: add a user "
        "with `kpi users add NAME --role editor`, or set KPI_WEB_PASSWORD."
    )


@pytest.mark.long
def test_up_warns_of_a_missing_instance_and_starts_anyway(
    kpi: Kpi, configured: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = "instance,bison_workspace_id,name"
    rows = written(tmp_path / "c.csv", header, "main,1,Heron Tide", "west,1,Lark Mill")
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main http://127.0.0.1:9, west http://127.0.0.1:10")
    kpi("clients", "import", rows).answer()
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main http://127.0.0.1:9")
    monkeypatch.setenv("KPI_WEB_PORT", "0")
    with kpi_in_a_process("up") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("No webhooks are received from main: ")
        assert process.stdout.readline().startswith("The dashboard is at ")
        assert process.stdout.readline().startswith("Dagster runs at ")
        assert process.stdout.readline() == "Ctrl-C stops everything.\n"
        process.send_signal(signal.SIGINT)
        result = ended(process)
    assert result.code == 0
    assert result.err == f"Warning: {WITHOUT}: west (lark-mill).\n"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_second_up_is_refused_and_starts_within_the_heartbeat_once_the_first_is_killed(
    kpi: Kpi, configured: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main http://127.0.0.1:9")
    monkeypatch.setenv("KPI_WEB_PORT", "0")
    with kpi_in_a_process("up") as first:
        page = started(first)
        parts = psutil.Process(first.pid).children(recursive=True)

        monkeypatch.setenv("KPI_WEB_PORT", page.rpartition(":")[2])
        at_its_port = kpi("up").error()

        assert f" is in use by `kpi up`, process {first.pid}. " in at_its_port

        monkeypatch.setenv("KPI_WEB_PORT", "0")
        monkeypatch.setenv("KPI_STATE_DIR", str(tmp_path / "another state"))
        refused = kpi("up")

        assert refused.code == 1
        assert refused.out == ""
        found = re.search(r"Error: Dagster already works on this database: (.*)\n", refused.err)
        assert found, refused
        assert found[1].startswith(f"`kpi up`, process {first.pid} on {socket.gethostname()}, ")
        assert f"with its page at {page}. " in found[1]
        assert first.poll() is None

        # As when the machine loses its power: nobody releases anything.
        for process in (*parts, psutil.Process(first.pid)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        first.wait()
    with kpi_in_a_process("up") as second:
        assert second.stderr is not None
        waits = f"Dagster worked on this database a moment ago: `kpi up`, process {first.pid} "
        assert waits in second.stderr.readline()
        assert started(second) != ""
        second.send_signal(signal.SIGINT)
        assert ended(second).code == 0


def started(process: subprocess.Popen[str]) -> str:
    """Wait until `kpi up` has said where its page is and how to stop it; the address."""
    assert process.stdout is not None
    page = ""
    for line in process.stdout:
        if found := re.match(r"Dagster runs at (\S+),", line):
            page = found[1]
        # Ctrl-C before this line ends the start, with another exit code.
        if line.startswith("Ctrl-C stops everything."):
            return page
    raise AssertionError(process.communicate()[1])
