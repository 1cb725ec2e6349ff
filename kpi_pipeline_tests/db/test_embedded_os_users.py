"""Who on a machine reaches the embedded server, and what a state folder that can't be used says."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from kpi_pipeline.db.server.embedded import EmbeddedServer, embedded_server
from kpi_pipeline_tests.db.embedded_users import all_is_gone, answer, copy_state, made, user_of
from kpi_pipeline_tests.guard import RUN

__all__ = ["made"]
pytestmark = pytest.mark.server

_NOBODY = 65534
# Runs a command as a user without rights.
_AS_NOBODY = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
_CONNECT = """
import sys, psycopg
psycopg.connect(host=sys.argv[1], port=5432, user="postgres", dbname="postgres")
"""
# Not `kpi`, which takes a second more to import.
_USE = """
import sys
from pathlib import Path
from kpi_pipeline.db.server.embedded import embedded_server
from kpi_pipeline.errors import KpiError
try:
    with embedded_server(Path(sys.argv[1]), "postgres"):
        pass
except KpiError as error:
    sys.exit(str(error))
"""
as_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs a second user"
)


@pytest.fixture(scope="module")
def other_python() -> list[str]:
    """Starts Python as a user without rights."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs a second user")
    # That of root's virtual environment may be in a folder of root's alone.
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        again = "import subprocess, sys; subprocess.run([sys.executable, '-V'], check=True)"
        command = [*_AS_NOBODY, python, "-c", again]
        if not subprocess.run(command, capture_output=True, check=False).returncode:
            return [*_AS_NOBODY, python]
    pytest.skip("no other user may run this version of Python")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path that any user may enter, as /var/lib."""
    path = Path(tempfile.mkdtemp(dir=os.environ[RUN]))
    path.chmod(0o755)
    Path(os.environ[RUN]).chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=["with a space and 'quotes'", "a comma, and " + "s" * 90])
def state(request: pytest.FixtureRequest, folder: Path, made: Path) -> Path:
    path: Path = folder / request.param
    copy_state(made, path)
    return path


def _socket_folder(url: URL) -> Path:
    return Path(str(url.query["host"]))


def test_it_listens_in_a_folder_of_its_owner_alone_however_long_the_path_is(state: Path) -> None:
    with embedded_server(state, "postgres") as url:
        place = _socket_folder(url)
        assert answer(url) == 1
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert place.owner() == (state / "postgres").owner()
        assert stat.S_IMODE((place / ".s.PGSQL.5432").stat().st_mode) == 0o700
        assert answer(url, "SHOW listen_addresses") == ""
        if os.geteuid() == 0:
            refused = subprocess.run(
                [*_AS_NOBODY, sys.executable, "-c", _CONNECT, str(place)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert "Permission denied" in refused.stderr
    all_is_gone(state)
    assert place == state / "postgres" or not place.exists(), "a short one is deleted"


@as_root
def test_a_short_folder_that_another_user_made_in_its_place_is_not_used(
    folder: Path, made: Path
) -> None:
    state = folder / ("s" * 100)
    copy_state(made, state)
    with embedded_server(state, "postgres") as url:
        place = _socket_folder(url)
        server = EmbeddedServer(state)
        server.stop(crash=True)
        # As after a restart of the machine, which empties /tmp.
        shutil.rmtree(place)
        place.mkdir()
        os.chown(place, _NOBODY, _NOBODY)
        server.start()
        assert _socket_folder(server.address("postgres")) != place
        assert not list(place.iterdir())
    place.rmdir()


def test_two_users_of_a_machine_each_run_one_at_the_same_time(
    folder: Path, made: Path, other_python: list[str]
) -> None:
    own, others = folder / "own", folder / "others"
    copy_state(made, own)
    copy_state(made, others)
    for it in (others, *others.rglob("*")):
        os.chown(it, _NOBODY, _NOBODY)
    with embedded_server(own, "postgres") as url, user_of(others, *other_python) as other:
        address = other.address()
        assert answer(url) == answer(address) == 1
        assert _socket_folder(address).stat().st_uid == _NOBODY
        other.leave()
    all_is_gone(others)


@pytest.mark.long
def test_root_may_use_the_server_of_another_user_who_can_use_it_afterwards(
    folder: Path, other_python: list[str]
) -> None:
    state = folder / "state"
    state.mkdir(mode=0o700)
    os.chown(state, _NOBODY, _NOBODY)
    for prefix in ([], other_python, []):
        with user_of(state, *prefix) as user:
            assert answer(user.address()) == 1
            user.leave()
    assert {it.stat().st_uid for it in state.rglob("*")} == {_NOBODY}
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


@as_root
def test_as_root_the_state_folder_is_opened_to_the_servers_user_alone(folder: Path) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    with embedded_server(private / "state", "postgres") as url:
        assert answer(url) == 1
    assert stat.S_IMODE((private / "state").stat().st_mode) == 0o710
    assert (private / "state").group() == (private / "state/postgres").owner()
    # Folders above may be passed through, but not listed.
    assert stat.S_IMODE(private.stat().st_mode) == 0o701


def problem(state: Path, *prefix: str) -> str:
    """Why another process can't use the state folder: the sentence that `kpi` prints."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", _USE, str(state)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    return done.stderr.strip()


@as_root
def test_a_state_folder_of_another_user_is_one_sentence(folder: Path) -> None:
    state = folder / "state"
    state.mkdir(mode=0o700)
    assert problem(state, *_AS_NOBODY) == (
        f"This user may not use the state folder {state}: no permission for "
        f"{state}/postgres.shared. Run this as the folder's owner, or set KPI_STATE_DIR to another "
        "folder."
    )


def on_a_small_disk(folder: Path, *commands: str) -> list[str]:
    """A command line before another one: on a disk of 100 MB in this folder, after these."""
    steps = [f"mount -t tmpfs -o size=100m none {folder}", *commands, 'exec "$@"']
    return ["unshare", "--mount", "sh", "-ec", "; ".join(steps), "sh"]


@pytest.fixture
def mounting() -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("may not mount a disk")


@as_root
@pytest.mark.usefixtures("mounting")
def test_a_full_disk_and_a_read_only_one_are_one_sentence_each(folder: Path) -> None:
    state = folder / "state"
    filled = f"dd if=/dev/zero of={folder}/fill bs=1M count=80 status=none"
    assert problem(state, *on_a_small_disk(folder, filled)) == (
        f"The disk of the state folder {state} is full. Free some space, or set KPI_STATE_DIR to "
        "another folder."
    )
    assert problem(state, *on_a_small_disk(folder, f"mount -o remount,ro {folder}")) == (
        f"The state folder {state} is on a read-only file system. Mount it writable, or set "
        "KPI_STATE_DIR to another folder."
    )
