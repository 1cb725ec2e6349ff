"""The embedded server: who stops it, and how it comes back."""

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, text

from kpi_pipeline.db.server.embedded import EmbeddedServer, embedded_server
from kpi_pipeline.db.server.embedded.server import programs
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.database import embedded_of
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.cli.running import wait_until
from kpi_pipeline_tests.db.embedded_users import (
    User,
    all_is_gone,
    answer,
    copy_state,
    made,
    pause,
    postmaster,
    processes_of,
    user_of,
)
from kpi_pipeline_tests.guard import RUN

__all__ = ["made"]
pytestmark = pytest.mark.server


@pytest.fixture
def state(made: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=os.environ[RUN])) / "state"
    copy_state(made, folder)
    yield folder
    shutil.rmtree(folder.parent)


def test_the_last_user_to_leave_stops_it_though_another_one_was_killed(state: Path) -> None:
    with user_of(state) as killed, user_of(state) as other:
        assert killed.address() == other.address()
        killed.kill()
        with embedded_server(state, "postgres") as url:
            assert answer(url) == 1
        assert answer(url) == 1, "the other one still uses it"
        other.leave()
    all_is_gone(state)


def test_a_server_whose_only_user_was_killed_is_stopped_in_order(state: Path) -> None:
    with user_of(state) as user:
        answer(user.address(), "CREATE TABLE kept AS SELECT 5 AS n")
        user.kill()
    all_is_gone(state)
    assert "database system is shut down" in EmbeddedServer(state).log.read_text()
    with embedded_server(state, "postgres") as url:
        assert answer(url, "SELECT n FROM kept") == 5


def test_children_of_a_killed_user_may_end_their_work_before_it_stops(state: Path) -> None:
    with user_of(state) as user:
        engine = create_engine(user.address())
        with engine.begin() as child:
            child.execute(text("CREATE TABLE kept AS SELECT 5 AS n"))
            user.kill()
            log = EmbeddedServer(state).log
            wait_until(lambda: "smart shutdown" in log.read_text(), "the beginning of the stop")
            child.execute(text("UPDATE kept SET n = 6"))
        engine.dispose()
    all_is_gone(state)
    with embedded_server(state, "postgres") as url:
        assert answer(url, "SELECT n FROM kept") == 6


def test_after_its_keeper_was_killed_too_the_next_user_stops_it(state: Path) -> None:
    with user_of(state) as user:
        url = user.address()
        for keeper in processes_of(state, "keeper.py"):
            keeper.kill()
        user.kill()
    assert answer(url) == 1, "nobody is left to stop it"
    with embedded_server(state, "postgres") as same:
        assert same == url
        assert len(processes_of(state, "keeper.py")) == 1
    all_is_gone(state)


def another_process_has_its_id(state: Path) -> None:
    """As after a restart of a container, where ids are given again from 1 on."""
    for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
        file = state / "postgres" / name
        lines = file.read_text().splitlines()
        file.write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")


@pytest.mark.parametrize("then", [lambda _: None, another_process_has_its_id])
def test_after_a_kill_it_is_started_again_at_its_address_with_all_that_was_committed(
    state: Path, then: Callable[[Path], None]
) -> None:
    with embedded_server(state, "postgres") as url:
        answer(url, "SET synchronous_commit = on; CREATE TABLE kept AS SELECT 5 AS n")
        server = EmbeddedServer(state)
        assert server.is_running()
        postmaster(state).kill()
        wait_until(lambda: not server.is_running(), "the end of the server")
        then(state)
        began = time.monotonic()
        server.start()
        assert time.monotonic() - began < 20
        assert server.is_running()
        assert server.address("postgres") == url
        assert answer(url, "SELECT n FROM kept") == 5
        process = postmaster(state)
        server.start()
        assert postmaster(state) == process, "it runs, so it was left alone"
    all_is_gone(state)


def test_one_that_was_paused_is_resumed_with_its_connections(state: Path) -> None:
    with embedded_server(state, "postgres") as url:
        process = postmaster(state)
        pause([process, *process.children()])
        server = EmbeddedServer(state)
        assert not server.is_running()
        server.start()
        assert server.is_running()
        assert postmaster(state) == process
        assert answer(url) == 1


def test_processes_that_are_left_of_a_killed_one_do_not_keep_it_down(state: Path) -> None:
    with embedded_server(state, "postgres") as url:
        process = postmaster(state)
        pause(process.children())
        process.kill()
        server = EmbeddedServer(state)
        wait_until(lambda: not server.is_running(), "the end of its first process")
        server.start()
        assert answer(url) == 1
    all_is_gone(state)


def test_one_that_is_stopping_is_waited_for_and_started_again(state: Path) -> None:
    with embedded_server(state, "postgres") as url:
        process = postmaster(state)
        # PostgreSQL's smart shutdown waits for the connection, which is never closed here.
        engine = create_engine(url)
        with engine.connect():
            process.send_signal(signal.SIGTERM)
            server = EmbeddedServer(state)
            wait_until(lambda: not server.is_running(), "the shutdown")
            server.start()
        engine.dispose()
        assert postmaster(state) != process
        assert answer(url) == 1


def test_one_of_an_earlier_version_that_lets_all_users_in_is_replaced(
    state: Path, tmp_path: Path
) -> None:
    open_to_all = Path(tempfile.mkdtemp())
    open_to_all.chmod(0o777)
    state.parent.chmod(0o711)
    data = str(state / "postgres")
    start = [str(programs() / "pg_ctl"), "-w", "-D", data, "-l", f"{data}/log"]
    start += ["-o", f"-h '' -k {open_to_all}", "start"]
    owner = (state / "postgres").stat()
    subprocess.run(
        start,
        check=True,
        user=owner.st_uid,
        group=owner.st_gid,
        cwd="/",
        stdout=subprocess.DEVNULL,
    )
    with embedded_server(state, "postgres") as url:
        assert url.query["host"] == data
        assert not list(open_to_all.iterdir())
        assert answer(url) == 1
    all_is_gone(state)
    open_to_all.rmdir()


def test_a_data_folder_that_was_never_finished_is_made_again(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=os.environ[RUN]))
    half_made = folder / "postgres.new-1"
    half_made.mkdir()
    (half_made / "PG_VERSION").write_text("18\n")
    # An earlier version made the folder first.
    (folder / "postgres").mkdir()
    EmbeddedServer(folder).create()
    assert (folder / "postgres/global/pg_control").is_file()
    assert not half_made.exists()


@pytest.mark.parametrize(("files", "found"), [({"PG_VERSION": "16"}, "16"), ({"a": ""}, "none")])
def test_a_folder_with_other_data_is_named_and_left_alone(
    tmp_path: Path, files: dict[str, str], found: str
) -> None:
    (tmp_path / "postgres").mkdir()
    for name, content in files.items():
        (tmp_path / "postgres" / name).write_text(content)
    with pytest.raises(KpiError, match=f"holds no data of PostgreSQL 18 .but: {found}.. Move the"):
        EmbeddedServer(tmp_path).create()
    assert {it.name for it in (tmp_path / "postgres").iterdir()} == set(files)


def test_the_embedded_server_is_found_by_the_settings_before_and_after_it_has_an_address(
    state: Path,
) -> None:
    settings = Settings(state_dir=state)

    def at(address: str) -> Settings:
        return settings.model_copy(update={"database_url": SecretStr(address)})

    assert embedded_of(at("postgresql://kpi@db.agency.example/kpi")) is None
    assert embedded_of(at("postgresql:///kpi?host=/var/run/postgresql")) is None
    with embedded_server(state) as url:
        found = [embedded_of(settings), embedded_of(at(url.render_as_string()))]
        assert all(it is not None and it.is_running() for it in found)
    assert not any(it is None or it.is_running() for it in found)


@pytest.mark.long
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(it, marks=pytest.mark.weekly) for it in (1, 2, 3))]
)
def test_users_that_come_leave_and_are_killed_at_random_leave_nothing(
    state: Path, seed: int
) -> None:
    dice = random.Random(seed)
    if seed % 2:
        # Then the first ones make it.
        shutil.rmtree(state / "postgres")
    for _ in range(4):
        for user in [User(state) for _ in range(4)]:
            time.sleep(dice.uniform(0, 1))
            if dice.random() < 0.3:
                user.leave()
            else:
                # Perhaps in the middle of the start or the stop of the server.
                user.kill()
        if dice.random() < 0.5:
            all_is_gone(state)
    all_is_gone(state)
    with embedded_server(state, "postgres") as url:
        assert answer(url) == 1
