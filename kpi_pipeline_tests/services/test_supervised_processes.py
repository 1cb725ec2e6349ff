"""What the supervisor does to processes that are killed, and to itself when it gets a signal."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kpi_pipeline.parts import read_parts
from kpi_pipeline.services.processes import Child
from kpi_pipeline.services.supervisor import Supervisor
from kpi_pipeline_tests.cli.running import wait_until

FOREVER = "import time\nwhile True: time.sleep(60)"


@pytest.fixture
def handlers() -> Iterator[None]:
    """The signal handlers of before, after a supervisor has set its own."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def _children(folder: Path, *programs: str) -> list[Child]:
    return [
        Child(f"Helper {n}", [sys.executable, "-c", it], os.environ, folder / f"logs/{n}.log")
        for n, it in enumerate(programs)
    ]


def _supervised(folder: Path, children: list[Child], warnings: list[str]) -> Supervisor:
    return Supervisor("kpi up", folder, children, lambda _: None, warnings.append, lambda: True)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_killed_children_come_back_with_other_ids_and_a_signal_ends_all(
    tmp_path: Path, number: signal.Signals
) -> None:
    children = _children(tmp_path, FOREVER, FOREVER)
    warnings: list[str] = []
    pids: list[int] = []

    def kill_and_stop() -> None:
        wait_until(lambda: all(it.is_started for it in children), "the start of both")
        first = [it.pid for it in children]
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not {it.pid for it in children} & set(first), "their restart")
        pids.extend([*first, *(it.pid for it in children)])
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=kill_and_stop)
    thread.start()
    _supervised(tmp_path, children, warnings).run("Ctrl-C stops everything.")
    thread.join()

    assert len(set(pids)) == 4
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert sorted(it.split(".")[0] for it in warnings if "killed" in it) == [
        "Helper 0 was killed by SIGKILL",
        "Helper 1 was killed by SIGKILL",
    ]


@pytest.mark.usefixtures("handlers")
def test_ctrl_c_while_a_part_pauses_leaves_nothing(tmp_path: Path) -> None:
    children = _children(tmp_path, "raise SystemExit(3)", FOREVER)
    warnings: list[str] = []
    supervisor = _supervised(tmp_path, children, warnings)
    before = psutil.Process().children()

    def stop() -> None:
        wait_until(lambda: bool(warnings), "the end of the first")
        wait_until(lambda: children[1].is_started, "the start of the second")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=stop)
    thread.start()
    supervisor.run("Ctrl-C stops everything.")
    thread.join()

    assert "Helper 0 ended with code 3. It is started again in 1 s; see " in warnings[0]
    assert not any(it.is_started for it in children)
    assert psutil.Process().children() == before
    found = read_parts(tmp_path)
    assert found is not None
    assert found.command == "kpi up"


def test_a_restart_ends_what_the_dead_part_left_first(tmp_path: Path) -> None:
    orphan = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {FOREVER!r}])"
    (child,) = _children(tmp_path, f"{orphan}; import os; os._exit(1)")
    order: list[str] = []
    with child:
        wait_until(lambda: child.problem() is not None, "its end")
        session = child.pid
        child.before_restart = lambda: order.append(str(_of_session(session)))
        assert _of_session(session) == 1
        child.start()
    assert order == ["0"], "before anything is done for the new start, the orphan has ended"


def _of_session(leader: int) -> int:
    """How many processes that are no zombies this session has."""
    found = 0
    for process in psutil.process_iter():
        try:
            alive = process.status() != psutil.STATUS_ZOMBIE
            found += alive and os.getsid(process.pid) == leader
        except (psutil.Error, ProcessLookupError):
            continue
    return found
