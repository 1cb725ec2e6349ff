import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from kpi_pipeline.errors import KpiError
from kpi_pipeline.services import processes
from kpi_pipeline.services.processes import Child, answers, free_port, require_free_port
from kpi_pipeline_tests.bison_sandbox.running import Stage
from kpi_pipeline_tests.cli.running import closed_port, taken_port, wait_until

FOREVER = "import time\nwhile True: time.sleep(60)"
# Starts a process that no SIGTERM ends, and says its id. It lasts a minute at most.
WITH_A_STUBBORN_CHILD = """
import subprocess, sys
stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True)"
child = subprocess.Popen(
    [sys.executable, "-c", stubborn + "; time.sleep(60)"], stdout=subprocess.PIPE
)
child.stdout.readline()
print("grandchild", child.pid, flush=True)
"""


def _python(program: str) -> Sequence[str]:
    return [sys.executable, "-c", program]


def _child(tmp_path: Path, program: str) -> Child:
    return Child("The helper", _python(program), os.environ, tmp_path / "logs" / "helper.log")


def _is_gone(pid: int) -> bool:
    """Whether a process has ended; without a waiting parent it stays in the list as a zombie."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _wait_for_words(child: Child, words: str) -> None:
    child.wait_until(lambda: words in child.log.read_text(), 20)


def _grandchild(child: Child) -> int:
    child_says = child.log.read_text().split()
    return int(child_says[child_says.index("grandchild") + 1])


def test_a_child_that_dies_at_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    program = "for n in range(40): print('line', n)\nraise SystemExit('no such database')"
    with _child(tmp_path, program) as child, pytest.raises(KpiError) as refused:
        child.wait_until(lambda: False, 20)
    lines = str(refused.value).splitlines()
    assert lines[0] == f"The helper ended with code 1. The end of {child.log}:"
    assert lines[1:] == [f"line {number}" for number in range(26, 40)] + ["no such database"]


def test_a_child_that_is_not_ready_in_time_is_named_with_its_log(tmp_path: Path) -> None:
    with _child(tmp_path, f"print('still waiting', flush=True)\n{FOREVER}") as child:
        _wait_for_words(child, "still waiting")
        with pytest.raises(KpiError, match=r"(?s)The helper was not ready in 0 s.*still waiting"):
            child.wait_until(lambda: False, 0)


def test_a_child_that_ends_later_is_noticed(tmp_path: Path) -> None:
    with _child(tmp_path, FOREVER) as child:
        child.require_alive()
        os.kill(child.pid, signal.SIGKILL)
        wait_until(lambda: _is_gone(child.pid), "the end of the child")
        with pytest.raises(KpiError, match="The helper was killed by SIGKILL"):
            child.require_alive()


def test_a_child_gets_sigterm_first_and_may_end_in_order(tmp_path: Path) -> None:
    tidy = "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(print('tidied up')))\n"
    with _child(tmp_path, f"{tidy}print('ready', flush=True)\n{FOREVER}") as child:
        _wait_for_words(child, "ready")
    assert child.log.read_text().splitlines() == ["ready", "tidied up"]
    assert not psutil.pid_exists(child.pid)


def test_stopping_a_child_ends_its_own_children_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_GRACE_SECONDS", 0.2)
    with _child(tmp_path, WITH_A_STUBBORN_CHILD + FOREVER) as child:
        _wait_for_words(child, "grandchild")
        grandchild = _grandchild(child)
        assert not _is_gone(grandchild)
    assert not psutil.pid_exists(child.pid)
    wait_until(lambda: _is_gone(grandchild), "the end of the grandchild")


def test_the_orphans_of_a_child_that_crashed_are_ended(tmp_path: Path) -> None:
    with _child(tmp_path, WITH_A_STUBBORN_CHILD + "import os; os._exit(3)") as child:
        with pytest.raises(KpiError, match="ended with code 3"):
            child.wait_until(lambda: False, 20)
        grandchild = _grandchild(child)
        assert not _is_gone(grandchild)
    wait_until(lambda: _is_gone(grandchild), "the end of the orphan")


@pytest.mark.server
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_child_does_not_outlive_a_parent_that_was_killed(tmp_path: Path) -> None:
    program = f"""
import os, sys
from pathlib import Path
from kpi_pipeline.services.processes import Child
with Child("The helper", [sys.executable, "-c", {FOREVER!r}], os.environ, Path(sys.argv[1])) as c:
    print(c.pid, flush=True)
    {FOREVER.replace(chr(10), chr(10) + "    ")}
"""
    command = [*_python(program), str(tmp_path / "helper.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        try:
            assert not _is_gone(pid)
            parent.kill()
            wait_until(lambda: _is_gone(pid), "the end of the child")
        finally:
            parent.kill()
            if not _is_gone(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_port_in_use_is_refused_with_its_number_and_its_setting() -> None:
    with taken_port() as port, pytest.raises(KpiError) as refused:
        require_free_port(int(port), "KPI_WEB_PORT")
    listener = f"`{psutil.Process().name()}`, process {os.getpid()}"
    assert str(refused.value) == (
        f"Port {port} on 127.0.0.1 is in use by {listener}. Stop the program that listens there, "
        "or choose another port with KPI_WEB_PORT."
    )


def test_a_port_in_use_by_a_part_of_a_command_names_the_command(tmp_path: Path) -> None:
    # As the console script `kpi`, with a process that listens.
    script = tmp_path / "kpi"
    listens = (
        "import socket; it = socket.create_server(('127.0.0.1', 0)); "
        "print(it.getsockname()[1], flush=True); input()"
    )
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {listens!r}])"
    script.write_text(program)
    command = [sys.executable, str(script), "--demo", "up"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        with pytest.raises(KpiError) as refused:
            require_free_port(int(port), "KPI_WEB_PORT")
        process.communicate("")
    start = f"Port {port} on 127.0.0.1 is in use by `kpi up`, process {process.pid}. Stop "
    assert str(refused.value).startswith(start)


def test_a_port_in_use_is_refused_where_nobody_may_see_by_whom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", refuse)
    with taken_port() as port, pytest.raises(KpiError, match=r"127\.0\.0\.1 is in use\. Stop the"):
        require_free_port(int(port), "KPI_WEB_PORT")


def test_a_free_port_and_any_port_pass() -> None:
    require_free_port(int(closed_port()), "KPI_WEB_PORT")
    require_free_port(0, "KPI_WEB_PORT")


def test_a_port_that_was_let_go_a_moment_ago_is_free() -> None:
    # Its last connection lingers; the servers listen on it all the same.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as caller:
            accepted, _ = listener.accept()
            accepted.close()
            caller.recv(1)
    require_free_port(port, "KPI_WEB_PORT")


def test_a_free_port_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", free_port())):
        pass


def test_a_server_answers_when_it_says_so_with_200(stage: Stage) -> None:
    assert answers(f"{stage.url}/sandbox/setup")
    assert not answers(f"{stage.url}/nowhere")
    assert not answers(f"http://127.0.0.1:{closed_port()}/")
