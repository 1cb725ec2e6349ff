import secrets
from pathlib import Path

import pytest
from sqlalchemy import URL

from kpi_pipeline.services.dagster_home import child_environment
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.cli.running import Kpi

SECRET = "abcDEFghi123456789012345"
ADVICE = (
    "Some settings are wrong. Correct them in the environment or in the settings file "
    "(docs/settings.md lists them all):"
)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "KPI_TIMEZONE",
            "Mars/Olympus",
            "'Mars/Olympus' is not a time zone; write one such as America/Chicago",
        ),
        (
            "KPI_BISON_INSTANCES",
            "main https://bison.example/api",
            "main: its address holds more than scheme and host, write it as https://HOST",
        ),
        (
            "KPI_BISON_INSTANCES",
            "main bison.example",
            "entry 1: its address is not valid, write it as https://HOST",
        ),
        (
            "KPI_BISON_INSTANCES",
            f"main https://bison.example {SECRET}",
            "main: its master key is not of the form NUMBER|LETTERS-AND-DIGITS, copy it again",
        ),
        ("KPI_BISON_ATTEMPTS", "0", "Input should be greater than or equal to 1"),
        ("KPI_FIRST_DATE", "1 March", "Input should be a valid date"),
        ("KPI_BISON_INSTANCES", "East https://bison.example", "entry 1: its name is not valid"),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_should_be(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    error = kpi("clients", "list").error()
    assert error.startswith(f"{ADVICE}\n  {name}: {message}")
    assert SECRET not in error
    assert not list(tmp_path.iterdir())


def test_all_wrong_settings_are_named_at_once(kpi: Kpi, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "KPI_TIMEZONE": "Chicago",
        "KPI_BISON_INSTANCES": f"main ftp://bison.example {SECRET}",
        "KPI_WEB_PORT": "99999",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    error = kpi("metrics").error()
    assert [name for name in wrong if f"{name}: " in error] == list(wrong)
    assert SECRET not in error


def test_a_password_in_the_address_of_email_bison_is_not_shown(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_BISON_INSTANCES", f"main https://agency:{SECRET}@bison.example")
    error = kpi("clients", "list").error()
    assert "KPI_BISON_INSTANCES: main: its address holds more than scheme and host" in error
    assert SECRET not in error


def test_a_missing_settings_file_is_named(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KPI_ENV_FILE", str(tmp_path / "nowhere.env"))
    error = kpi("clients", "list").error()
    assert (
        error
        == f"KPI_ENV_FILE names {tmp_path / 'nowhere.env'}, which is not a file. Check the name."
    )


def test_a_secret_key_that_is_no_fernet_key_is_refused_and_not_shown(
    kpi: Kpi, configured: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in (SECRET, f"{SECRET}{SECRET[:20]}", "ä" * 44):
        monkeypatch.setenv("KPI_SECRET_KEY", key)
        error = kpi("clients", "list").error()
        assert error.startswith("KPI_SECRET_KEY is no Fernet key: ")
        assert "Make one with `kpi secret-key`" in error
        assert key not in error


def test_a_secret_key_from_the_command_is_accepted(
    kpi: Kpi, configured: URL, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KPI_SECRET_KEY", kpi("secret-key").answer().strip())
    kpi("clients", "list").answer()
    assert not list(tmp_path.glob("**/secret.key"))


def test_there_is_no_demo_to_work_on_before_it_ran(kpi: Kpi, tmp_path: Path) -> None:
    error = kpi("--demo", "metrics").error()
    assert error == "There is no demo to work on yet: run `kpi demo` first."
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("summary_at", ["", "off", "06:45"])
def test_dagsters_processes_read_the_settings_as_the_command_does(
    database: URL, monkeypatch: pytest.MonkeyPatch, summary_at: str
) -> None:
    secret = secrets.token_urlsafe(24)
    for name, value in {
        "KPI_DATABASE_URL": database.render_as_string(hide_password=False),
        "KPI_DAGSTER_DATABASE_URL": database.render_as_string(hide_password=False),
        "KPI_ALERT_URLS": f"json://one.example/{secret}, slack://two",
        "KPI_HEARTBEAT_URL": f"https://watch.example/{secret}",
        "KPI_HEARTBEAT_URL_CHECKS": f"https://watch.example/{secret}",
        "KPI_WEBHOOK_SECRET_MAIN": secret,
        "KPI_SUMMARY_AT": summary_at,
    }.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()

    for name, value in child_environment(settings).items():
        monkeypatch.setenv(name, value)

    assert load_settings() == settings
