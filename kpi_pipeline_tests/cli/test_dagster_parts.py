"""`kpi dagster code-server`, `daemon` and `page`: what each becomes, and what it does before."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from dagster import DagsterRun, DagsterRunStatus
from sqlalchemy import URL, Engine

from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.orchestration.partitions import WORKSPACE
from kpi_pipeline.services.dagster_home import dagster_instance
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.cli.running import Kpi
from kpi_pipeline_tests.db.stocked import imported, record

pytestmark = pytest.mark.server

Become = Callable[..., tuple[list[str], dict[str, str]]]


@pytest.fixture
def become(kpi: Kpi, monkeypatch: pytest.MonkeyPatch) -> Become:
    """Run a command; the command line and environment of the process that it becomes."""
    became: list[tuple[list[str], dict[str, str]]] = []

    def execve(_program: str, command: list[str], environment: dict[str, str]) -> None:
        became.append((command, environment))
        raise SystemExit(0)

    def run(*words: str) -> tuple[list[str], dict[str, str]]:
        monkeypatch.setattr(os, "execve", execve)
        assert kpi("dagster", *words).code == 0
        return became.pop()

    return run


@pytest.mark.parametrize("part", ["daemon", "page"])
def test_the_daemon_and_the_page_find_the_code_server_at_its_address(
    configured: URL, become: Become, part: str
) -> None:
    command, environment = become(part, "--code-server", "code-server:4266")

    workspace = Path(command[command.index("-w") + 1])
    assert json.loads(workspace.read_text()) == {
        "load_from": [
            {
                "grpc_server": {
                    "host": "code-server",
                    "port": 4266,
                    "location_name": "kpi_pipeline",
                }
            }
        ]
    }
    assert str(configured.database) in environment["KPI_DATABASE_URL"]
    assert (Path(environment["DAGSTER_HOME"]) / "dagster.yaml").exists()
    assert ("run" in command) == (part == "daemon")


def test_the_code_server_ends_what_the_one_before_it_left_and_knows_all_clients(
    configured: URL, become: Become, engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(101, "Acme"))
    with ready_databases(load_settings()) as settings, dagster_instance(settings) as instance:
        origin = _origin_of_another_server()
        lost = instance.add_run(
            DagsterRun(
                "__ASSET_JOB",
                str(uuid4()),
                status=DagsterRunStatus.STARTED,
                remote_job_origin=origin,
            )
        )

    command, _ = become("code-server", "--listen", "0.0.0.0:4266")

    assert command[1:] == [
        *("-m", "kpi_pipeline.orchestration.runtime.code_server", "0.0.0.0:4266", "text")
    ]
    with ready_databases(load_settings()) as settings, dagster_instance(settings) as instance:
        run = instance.get_run_by_id(lost.run_id)
        assert run is not None
        assert run.status is DagsterRunStatus.FAILURE
        assert list(instance.get_dynamic_partitions(WORKSPACE)) == ["acme"]


def _origin_of_another_server() -> Any:
    from dagster._core.remote_origin import (
        GrpcServerCodeLocationOrigin,
        RemoteJobOrigin,
        RemoteRepositoryOrigin,
    )

    location = GrpcServerCodeLocationOrigin(host="code-server", port=4266)
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), "__ASSET_JOB")


def test_a_daemon_is_alive_as_long_as_it_sends_heartbeats(
    configured: URL, kpi: Kpi, dagster_database: URL
) -> None:
    with ready_databases(load_settings()) as settings, dagster_instance(settings):
        pass
    assert kpi("dagster", "alive").error() == "No daemon of Dagster has sent a heartbeat ever."
    engine = open_engine(dagster_database)
    for age, code in ((10, 0), (500, 1)):
        with engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM daemon_heartbeats")
            connection.exec_driver_sql(
                "INSERT INTO daemon_heartbeats (daemon_type, daemon_id, timestamp) "
                f"VALUES ('SENSOR', 'a', now() AT TIME ZONE 'UTC' - interval '{age} s')"
            )
        assert kpi("dagster", "alive").code == code
    engine.dispose()


def test_they_need_a_server_that_other_containers_reach(kpi: Kpi) -> None:
    for part in ("code-server", "daemon", "page"):
        error = kpi("dagster", part).error()
        assert error.startswith(f"KPI_DATABASE_URL is not set. `kpi dagster {part}` needs")


def test_an_address_without_a_port_is_an_error_that_shows_the_right_form(
    configured: URL, kpi: Kpi
) -> None:
    for words in (("daemon", "--code-server", "somewhere"), ("code-server", "--listen", ":1x")):
        assert kpi("dagster", *words).error().endswith("write HOST:PORT, such as 127.0.0.1:4266.")
