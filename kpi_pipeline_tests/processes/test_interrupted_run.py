"""An interrupted run of the tests leaves nothing behind, however it is interrupted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from sqlalchemy import URL

from kpi_pipeline_tests.cli.running import wait_until
from kpi_pipeline_tests.guard import RUN
from kpi_pipeline_tests.restartable import restartable_server

_ONLY_THE_INTERRUPTED_ONE = ["-p", "no:cacheprovider", "-o", "python_functions=is_interrupted"]


def is_interrupted(postgres: URL) -> None:
    """A test of the run that is interrupted: it starts servers and waits."""
    assert postgres.database
    with restartable_server():
        Path(os.environ["PYTEST_INTERRUPT_ME"]).touch()
        time.sleep(600)


@pytest.mark.server
@pytest.mark.long
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_leaves_no_postgresql_behind(
    tmp_path: Path, stop: signal.Signals
) -> None:
    ready = tmp_path / "ready"
    with (tmp_path / "output").open("w") as output:
        run = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", *_ONLY_THE_INTERRUPTED_ONE, __file__],
            env=dict(os.environ) | {"PYTEST_INTERRUPT_ME": str(ready)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(ready.exists, "the start of the servers", seconds=120)
        (guard,) = [it for it in psutil.Process(run.pid).children() if _is_guard(it)]
        folder = guard.cmdline()[-1]
        assert len(_postgresqls(folder)) == 2

        run.send_signal(stop)

        run.wait(60)
        wait_until(lambda: not guard.is_running(), "the end of the guard")
    finally:
        run.kill()
        run.wait()
    assert _postgresqls(folder) == []
    assert not Path(folder).exists()


def _is_guard(process: psutil.Process) -> bool:
    return "kpi_pipeline_tests.guard" in process.cmdline()


def _postgresqls(folder: str) -> list[psutil.Process]:
    """The PostgreSQL servers that the run started, its own and those of its tests."""
    found = []
    for process in psutil.process_iter():
        try:
            of_the_run = process.environ().get(RUN) == folder or folder in str(process.cmdline())
            if of_the_run and "-D" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found
