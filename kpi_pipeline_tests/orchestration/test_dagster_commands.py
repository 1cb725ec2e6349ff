"""Dagster's own commands in a fresh clone, with no variable set and no database of the user's."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from kpi_pipeline_tests import PROJECT_ROOT
from kpi_pipeline_tests.cli.running import wait_until

pytestmark = pytest.mark.server

# Opens the app as a run does, says so, and ends when its input does.
_AN_APP = """
import sys
from sqlalchemy import text
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.runtime.databases import storage_address
from kpi_pipeline.settings import load_settings
with AppResource().opened() as app:
    with app.engine.connect() as connection:
        clients = connection.scalar(text("SELECT count(*) FROM clients"))
    print("clients:", clients, "dagster:", storage_address(load_settings()), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: the embedded server's socket is in it."""
    with tempfile.TemporaryDirectory(prefix="kpi-") as name:
        yield Path(name)


@pytest.fixture
def clone(folder: Path) -> Path:
    """What a clone of the repository has, without tests and state."""
    for name in ("kpi_pipeline", "bison_sandbox"):
        without = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT_ROOT / name, folder / name, symlinks=True, ignore=without)
    for name in ("pyproject.toml", "dagster.yaml", "workspace.yaml"):
        shutil.copy(PROJECT_ROOT / name, folder)
    return folder


def bare_environment(home: Path) -> Mapping[str, str]:
    """No variable of the pipeline's or Dagster's, except that nothing is sent to Dagster Labs."""
    scripts = Path(sys.executable).parent
    return {
        "PATH": f"{scripts}{os.pathsep}{os.defpath}",
        "HOME": str(home),
        "PYTHONPATH": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }


def is_running(state: Path) -> bool:
    return (state / "postgres" / "postmaster.pid").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("dg check defs", "All definitions loaded successfully."),
        (
            "dagster definitions validate",
            "Validation successful for code location kpi_pipeline.",
        ),
        (
            "dagster asset materialize --select client_registry -m kpi_pipeline.definitions",
            # It prints what goes wrong, and its code says that nothing did.
            "",
        ),
    ],
)
def test_a_command_of_dagsters_works_in_a_fresh_clone_and_leaves_no_server_behind(
    clone: Path, command: str, output: str
) -> None:
    done = subprocess.run(
        command.split(),
        cwd=clone,
        env=bare_environment(clone),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert output in done.stdout + done.stderr
    assert (clone / ".kpi" / "postgres").is_dir(), "the embedded server was started"
    assert not is_running(clone / ".kpi")


def an_app(state: Path) -> subprocess.Popen[str]:
    """A process that has opened the app in this state folder."""
    environment = {**os.environ, "KPI_STATE_DIR": str(state)}
    return subprocess.Popen(
        [sys.executable, "-c", _AN_APP],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return line


def end(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate("", timeout=60)
    assert process.returncode == 0, errors


@pytest.mark.long
def test_processes_without_an_address_share_one_server_and_the_last_one_stops_it(
    folder: Path,
) -> None:
    one, two, killed = (an_app(folder) for _ in range(3))
    lines = {first_line(one), first_line(two), first_line(killed)}
    (line,) = lines
    assert line.startswith("clients: 0 dagster: postgresql+psycopg2://")
    assert "kpi_dagster" in line
    assert folder.name in line

    killed.kill()
    killed.communicate()
    end(one)
    assert is_running(folder), "the other one still uses it"

    end(two)
    wait_until(lambda: not is_running(folder), "the end of the embedded server")
