"""The state folder and what is in it: no other user of the machine may open it."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from kpi_pipeline.services.dagster_home import child_environment
from kpi_pipeline.settings import Settings
from kpi_pipeline.settings.private_folders import private_state
from kpi_pipeline_tests.cli.running import Kpi


@pytest.fixture(autouse=True)
def _generous_umask() -> Iterator[None]:
    """Whatever the process would allow, the modes are set."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):o}"


def earlier(state: Path, folder_mode: int = 0o755) -> None:
    """A state folder of an earlier version."""
    for name in ("postgres", "postgres.shared", "dagster", "logs", "events", "demo"):
        (state / name).mkdir(parents=True)
    for name in ("secret.key", "parts.json", "logs/gateway.log"):
        (state / name).touch()
    state.chmod(folder_mode)


def test_a_state_folder_that_is_created_is_private(state: Path) -> None:
    assert private_state(state) is None
    assert [mode(state / it) for it in ("", "dagster", "logs")] == ["700"] * 3


def test_one_of_an_earlier_version_is_made_private_and_that_is_said_once(state: Path) -> None:
    earlier(state)
    said = private_state(state)
    assert said == (
        f"Other users of this machine might open the state folder {state} (mode 755). "
        "It is private now, with mode 700."
    )
    assert [mode(state / it) for it in ("", "dagster", "logs")] == ["700"] * 3
    assert mode(state / "logs/gateway.log") == "600"
    assert private_state(state) is None


def test_a_folder_with_files_of_others_keeps_its_mode_and_is_warned_about(state: Path) -> None:
    """KPI_STATE_DIR may be /srv, which others have to enter."""
    earlier(state)
    (state / "website").mkdir()
    said = private_state(state)
    assert said is not None
    assert "It has other files as well, so its mode stays" in said
    assert f"`chmod 700 {state}`" in said
    assert mode(state) == "755"
    assert [mode(state / it) for it in ("dagster", "logs")] == ["700"] * 2


def test_a_folder_of_another_user_is_warned_about(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier(state)

    def chmod(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "chmod", chmod)
    assert str(private_state(state)).endswith(f"Its owner has to run `chmod 700 {state}`.")


@pytest.mark.parametrize(("uid", "after"), [(0, "710"), (1000, "700")])
def test_roots_server_may_pass_through_and_nobody_elses(
    state: Path, uid: int, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL does not run as root: its user reaches its data by the folder's group."""
    earlier(state, 0o710)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    private_state(state)
    assert mode(state) == after


def test_dagsters_files_are_private_whatever_the_state_folder_is(state: Path) -> None:
    state.mkdir()
    address = SecretStr("postgresql://kpi@db/kpi_dagster")
    child_environment(Settings(state_dir=state, dagster_database_url=address))
    assert (mode(state), mode(state / "dagster")) == ("777", "700")


def test_kpi_up_makes_the_state_folder_private_and_says_so(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier(state)
    monkeypatch.setenv("KPI_STATE_DIR", str(state))
    monkeypatch.setenv("KPI_BISON_INSTANCES", "main https://mail.example")
    # It ends there.
    monkeypatch.setenv("KPI_DATABASE_URL", "postgresql://kpi@127.0.0.1:1/kpi")
    for name in ("KPI_WEB_PORT", "KPI_DASHBOARD_PORT", "KPI_GATEWAY_PORT"):
        monkeypatch.setenv(name, "0")
    ended = Kpi(capsys)("up")
    assert ended.code == 1
    assert f"Warning: Other users of this machine might open the state folder {state}" in ended.err
    assert mode(state) == "700"
