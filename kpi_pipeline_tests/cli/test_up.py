"""`kpi up` beside clients whose instance is not configured."""

import signal
from pathlib import Path

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
        assert process.stdout.readline().startswith("Dagster runs at ")
        assert process.stdout.readline() == "Ctrl-C stops everything.\n"
        process.send_signal(signal.SIGINT)
        result = ended(process)
    assert result.code == 0
    assert result.err == f"Warning: {WITHOUT}: west (lark-mill).\n"
