import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest


@pytest.fixture
def state() -> Iterator[Path]:
    """A state folder for a command of its own, which must leave no process behind."""
    # Not in pytest's own folder: every session closes that to other users, and a PostgreSQL that
    # root starts runs as one.
    with tempfile.TemporaryDirectory(prefix="kpi-demo-") as folder:
        yield Path(folder) / "state"
        found = [process for process in psutil.process_iter() if _works_in(process, Path(folder))]
        # A process that is about to end may do so.
        _, left = psutil.wait_procs(found, timeout=30)
        # A command that was killed, by a test that failed, can't stop its PostgreSQL.
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    assert left == [], "a process outlived the command that started it"


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        traces = [*process.cmdline(), process.environ().get("KPI_STATE_DIR", "")]
    except psutil.Error:
        return False
    return process.pid != os.getpid() and any(str(folder) in trace for trace in traces)
