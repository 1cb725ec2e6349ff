"""Settings that a command writes into the settings file."""

import os
import stat
from pathlib import Path

import pytest
from dotenv import dotenv_values

from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings.env_file import file_to_write, settings_with, write_settings

BEFORE = """\
# Ours
KPI_TIMEZONE=Asia/Tokyo   # the office
export OTHER='kept'

KPI_ALERT_URLS=
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def _mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_a_new_file_is_its_owners_alone(file: Path) -> None:
    assert write_settings(file, {"KPI_TIMEZONE": "UTC", "KPI_DATABASE_URL": ""}) == ["KPI_TIMEZONE"]
    assert file.read_text().splitlines()[1:] == ["KPI_TIMEZONE=UTC"]
    assert _mode(file) == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_other_lines_stay_as_they_are(file: Path) -> None:
    file.write_text(BEFORE)
    file.chmod(0o644)
    write_settings(file, {"KPI_TIMEZONE": "UTC", "KPI_WEB_PORT": "3100"})
    assert file.read_text() == (
        BEFORE.replace("KPI_TIMEZONE=Asia/Tokyo   # the office", "KPI_TIMEZONE=UTC")
        + "KPI_WEB_PORT=3100\n"
    )
    assert _mode(file) == 0o600


def test_what_is_so_already_is_not_written_but_made_private(file: Path) -> None:
    file.write_text(BEFORE)
    file.chmod(0o644)
    assert write_settings(file, {"KPI_TIMEZONE": "Asia/Tokyo", "KPI_ALERT_URLS": ""}) == []
    assert file.read_text() == BEFORE
    assert _mode(file) == 0o600


@pytest.mark.parametrize(
    "value",
    [
        "main https://bison.agency.example 1|abcDEF, eu https://eu.example",
        "postgresql://kpi:pa#ss w%40rd'\"\\@db.example/kpi?sslmode=verify-full&x=1",
        "with # a hash",
        " blanks at both ends ",
    ],
)
def test_every_value_is_read_back_as_it_was(file: Path, value: str) -> None:
    write_settings(file, {"KPI_DATABASE_URL": value})
    write_settings(file, {"KPI_TIMEZONE": "UTC"})
    assert dotenv_values(file)["KPI_DATABASE_URL"] == value


@pytest.mark.parametrize("value", ["two\nlines", "postgresql://kpi:${HOME}@db.example/kpi"])
def test_a_value_that_would_be_read_otherwise_is_refused_and_not_shown(
    file: Path, value: str
) -> None:
    file.write_text(BEFORE)
    with pytest.raises(KpiError, match="KPI_DATABASE_URL can't be written") as refused:
        write_settings(file, {"KPI_DATABASE_URL": value})
    assert value not in str(refused.value)
    assert file.read_text() == BEFORE
    assert list(file.parent.iterdir()) == [file]


def test_the_mark_that_some_editors_write_does_no_harm(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfKPI_TIMEZONE=Asia/Tokyo\n")
    assert write_settings(file, {"KPI_TIMEZONE": "Asia/Tokyo"}) == []
    write_settings(file, {"KPI_WEB_PORT": "3100"})
    settings = settings_with(file)
    assert (settings.timezone.key, settings.web_port) == ("Asia/Tokyo", 3100)


def test_the_file_behind_a_link_is_written_and_the_link_stays(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "kept" / "settings"
    real.parent.mkdir()
    file.symlink_to(real)
    monkeypatch.setenv("KPI_ENV_FILE", str(file))
    write_settings(file_to_write(), {"KPI_TIMEZONE": "UTC"})
    assert file.is_symlink()
    assert "KPI_TIMEZONE=UTC" in real.read_text()


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / ".env"
    with pytest.raises(KpiError, match=r"nowhere/\.env can't be written: No such file"):
        write_settings(file, {"KPI_TIMEZONE": "UTC"})


def test_the_file_is_the_one_that_commands_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KpiError, match="set but empty"):
        file_to_write()
    monkeypatch.setenv("KPI_ENV_FILE", "other.env")
    assert file_to_write() == tmp_path / "other.env"
    monkeypatch.delenv("KPI_ENV_FILE")
    assert file_to_write() == tmp_path / ".env"
    assert settings_with(file_to_write()).web_port == 3000
    assert "KPI_ENV_FILE" not in os.environ
