import secrets
from datetime import date, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr, ValidationError

from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import InstanceSetting
from kpi_pipeline.settings import Settings, load_settings
from kpi_pipeline_tests import PROJECT_ROOT

KEY = "12|" + "Abcdefgh12" * 5
MAIN = InstanceSetting("main", "https://bison.example", SecretStr(KEY))
EMEA = InstanceSetting("emea", "https://emea.bison.example", None)
MAIN_TEXT = f"main https://bison.example {KEY}"
EMEA_TEXT = "emea https://emea.bison.example"
SECRETS = {
    "KPI_DATABASE_URL": "postgresql://kpi:hunter2@db/kpi",
    "KPI_DATABASE_DIRECT_URL": "postgresql://kpi:hunter2@db:5432/kpi",
    "KPI_DAGSTER_DATABASE_URL": "postgresql://kpi:hunter2@db/kpi_dagster",
    "KPI_SECRET_KEY": "hunter2",
    "KPI_BISON_INSTANCES": "main https://bison.example 12|hunter2" + "x" * 40,
    "KPI_WEBHOOK_SECRET_MAIN": "hunter2" + "x" * 20,
    "KPI_ALERT_URLS": "json://kpi:hunter2@alerts.example/in, slack://hunter2",
    "KPI_HEARTBEAT_URL": "https://watch.example/hunter2",
    "KPI_HEARTBEAT_URL_CHECKS": "https://watch.example/hunter2/checks",
    "KPI_WEB_PASSWORD": "hunter2 of the operators",
    "KPI_WEB_READER_PASSWORD": "hunter2 of the readers",
}


def error_of(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(KpiError) as refused:
        load_settings()
    return str(refused.value)


def problems(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[str]:
    """What the error says about each wrong setting."""
    advice, *lines = error_of(monkeypatch, **variables).splitlines()
    assert advice == (
        "Some settings are wrong. Correct them in the environment or in the settings file "
        "(docs/settings.md lists them all):"
    )
    return [line.removeprefix("  ") for line in lines]


def test_without_any_variable_the_defaults_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KPI_STATE_DIR")
    settings = load_settings()
    assert settings.state_dir == PROJECT_ROOT / ".kpi"
    assert settings.timezone == ZoneInfo("America/Chicago")
    assert (settings.bison_instances, settings.bison_calls_in_flight) == ((), 16)
    assert settings.bison_timezone is None
    assert settings.database_url is None


def test_variables_are_read_in_their_own_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KPI_TIMEZONE", "Europe/Berlin")
    monkeypatch.setenv("KPI_FIRST_DATE", "2025-03-01")
    monkeypatch.setenv("KPI_BISON_CALLS_PER_SECOND", "0")
    monkeypatch.setenv("KPI_BISON_TIMEZONE", "America/New_York")
    monkeypatch.setenv("KPI_BISON_INSTANCES", f"main https://bison.example {KEY}")
    settings = load_settings()
    assert settings.timezone == ZoneInfo("Europe/Berlin")
    assert settings.first_date == date(2025, 3, 1)
    assert settings.bison_calls_per_second == 0
    assert settings.bison_timezone == ZoneInfo("America/New_York")
    assert settings.bison_instances == (MAIN,)


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        (
            "KPI_TIMEZONE",
            "Chicago",
            "'Chicago' is not a time zone; write one such as America/Chicago",
        ),
        (
            "KPI_TIMEZONE",
            "../UTC",
            "'../UTC' is not a time zone; write one such as America/Chicago",
        ),
        (
            "KPI_BISON_TIMEZONE",
            "EDT",
            "'EDT' is not a time zone; write one such as America/Chicago",
        ),
        (
            "KPI_BISON_INSTANCES",
            "main https://h 12, emea h",
            "main: its master key is not of the form NUMBER|LETTERS-AND-DIGITS, copy it again from "
            "Email Bison; entry 2: its address is not valid, write it as https://HOST",
        ),
        ("KPI_BISON_CALLS_IN_FLIGHT", "0", "Input should be greater than or equal to 1"),
        ("KPI_BISON_CALLS_IN_FLIGHT", "257", "Input should be less than or equal to 256"),
        ("KPI_BISON_CONCURRENCY", "0", "Input should be greater than or equal to 1"),
        ("KPI_BISON_CONCURRENCY", "65", "Input should be less than or equal to 64"),
        ("KPI_BISON_CALLS_PER_SECOND", "-1", "Input should be greater than or equal to 0"),
        ("KPI_BISON_TIMEOUT_SECONDS", "0", "Input should be greater than 0"),
        ("KPI_BISON_ATTEMPTS", "0", "Input should be greater than or equal to 1"),
        ("KPI_SERIES_MAX_DAYS", "60", "Input should be greater than or equal to 61"),
        ("KPI_WORKSPACES_PER_RUN", "0", "Input should be greater than or equal to 1"),
        ("KPI_RUN_RETENTION_DAYS", "6", "Input should be greater than or equal to 7"),
        ("KPI_WEB_PORT", "65536", "Input should be less than or equal to 65535"),
        ("KPI_ALERT_URLS", "slack", "an entry is not an address; write each as SERVICE://…"),
        ("KPI_ALERT_REMIND_HOURS", "0", "Input should be greater than or equal to 1"),
        ("KPI_SUMMARY_AT", "8", "'8' is not a time; write one such as 08:00"),
        ("KPI_FRESH_BY", "24:00", "'24:00' is not a time; write one such as 08:00"),
        ("KPI_STALE_AFTER_HOURS", "0", "Input should be greater than 0"),
        (
            "KPI_STATE_DIR",
            "~no-such-user-here/kpi",
            "it starts with the home folder of an unknown user",
        ),
    ],
)
def test_a_wrong_value_is_a_sentence_that_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, problem: str
) -> None:
    assert problems(monkeypatch, **{variable: value}) == [f"{variable}: {problem}"]


@pytest.mark.parametrize("minutes", ["0", "-15", "7", "45", "90", "1500"])
def test_the_refresh_divides_an_hour_or_is_whole_hours(
    monkeypatch: pytest.MonkeyPatch, minutes: str
) -> None:
    assert problems(monkeypatch, KPI_REFRESH_MINUTES=minutes) == [
        "KPI_REFRESH_MINUTES: it must divide an hour or be whole hours, a day at most; write 5, "
        "10, 15, 20, 30, 60, 120 or the like, or `off`"
    ]


@pytest.mark.parametrize(
    ("minutes", "stale_after"),
    [
        ("", timedelta(minutes=45)),
        ("1", timedelta(minutes=45)),
        ("20", timedelta(hours=1)),
        ("60", timedelta(hours=3)),
        ("720", timedelta(hours=26)),
        ("1440", timedelta(hours=26)),
        ("off", timedelta(hours=26)),
    ],
)
def test_numbers_are_stale_after_three_refreshes_unless_a_setting_says_when(
    monkeypatch: pytest.MonkeyPatch, minutes: str, stale_after: timedelta
) -> None:
    monkeypatch.setenv("KPI_REFRESH_MINUTES", minutes)
    assert load_settings().stale_after == stale_after
    monkeypatch.setenv("KPI_STALE_AFTER_HOURS", "0.5")
    assert load_settings().stale_after == timedelta(minutes=30)


@pytest.mark.parametrize("variable", ["KPI_FIRST_DATE", "KPI_WEB_PORT", "KPI_SERIES_MAX_DAYS"])
def test_a_value_of_the_wrong_type_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    (problem,) = problems(monkeypatch, **{variable: "soon"})
    assert problem.startswith(f"{variable}: Input should be a valid ")


def test_all_wrong_settings_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"KPI_TIMEZONE": "Chicago", "KPI_WEB_PORT": "-1", "KPI_BISON_INSTANCES": "x"}
    found = problems(monkeypatch, KPI_TIMEZON="UTC", **wrong)
    assert {line.split()[0].strip(":") for line in found} == {"KPI_TIMEZON", *wrong}


def test_even_the_validators_own_error_hides_what_was_typed() -> None:
    with pytest.raises(ValidationError, match="bison_instances") as error:
        Settings.model_validate({"bison_instances": "main https://b.example hunter2"})
    assert "hunter2" not in str(error.value)


def test_no_secret_stands_in_the_text_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "hunter2" not in shown
        assert "**********" in shown


def test_every_secret_that_the_settings_hold_is_tried_above() -> None:
    secret = {
        f"KPI_{name.upper()}"
        for name, field in Settings.model_fields.items()
        if "SecretStr" in str(field.annotation) or "InstanceSetting" in str(field.annotation)
    }
    # There is one for each instance.
    assert secret == {name.removesuffix("_MAIN") for name in SECRETS}


def test_each_instance_has_a_webhook_secret_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    main, emea = (secrets.token_urlsafe(24) for _ in range(2))
    monkeypatch.setenv("KPI_WEBHOOK_SECRET_MAIN", main)
    monkeypatch.setenv("KPI_WEBHOOK_SECRET_EMEA_NORTH", emea)
    found = load_settings().webhook_secret
    assert {name: it.get_secret_value() for name, it in found.items()} == {
        "main": main,
        "emea_north": emea,
    }


@pytest.mark.parametrize("weak", ["hunter2", "hunter2" + "/" * 30, "hunter2" + "é" * 30])
def test_a_webhook_secret_that_can_be_guessed_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, weak: str
) -> None:
    message = error_of(monkeypatch, KPI_WEBHOOK_SECRET_MAIN=weak)
    assert "hunter2" not in message
    assert "the one of MAIN must be 24 to 200 letters, digits, - and _" in message
    assert "kpi webhook-secret" in message


def test_addresses_of_alerts_are_separated_by_commas_or_blanks_and_may_contain_commas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mail = "mailto://kpi@mail.example?to=ann@a.example,bob@a.example"
    monkeypatch.setenv("KPI_ALERT_URLS", f" json://one.example/in, {mail}\n slack://x,json://two ")
    found = [it.get_secret_value() for it in load_settings().alert_urls]
    assert found == ["json://one.example/in", mail, "slack://x", "json://two"]


def test_the_summary_comes_at_eight_at_another_hour_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load_settings().summary_at == time(8)
    for text, hour in (("06:45", time(6, 45)), ("off", None)):
        monkeypatch.setenv("KPI_SUMMARY_AT", text)
        assert load_settings().summary_at == hour


@pytest.mark.parametrize(("text", "minutes"), [("", 5), ("1", 1), ("off", None), ("OFF", None)])
def test_the_event_feed_is_read_every_five_minutes_at_another_interval_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, text: str, minutes: int | None
) -> None:
    monkeypatch.setenv("KPI_EVENT_FEED_MINUTES", text)
    assert load_settings().event_feed_minutes == minutes


def test_links_lead_to_the_port_of_the_page_or_to_the_address_that_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KPI_WEB_PORT", "3456")
    assert load_settings().page_url == "http://127.0.0.1:3456"
    monkeypatch.setenv("KPI_DAGSTER_URL", "https://dagster.agency.example/")
    assert load_settings().page_url == "https://dagster.agency.example"


def test_one_webhook_secret_for_two_instances_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = secrets.token_urlsafe(24)
    message = error_of(monkeypatch, KPI_WEBHOOK_SECRET_MAIN=secret, KPI_WEBHOOK_SECRET_EMEA=secret)
    assert "two instances have the same one; give each its own" in message
    assert secret not in message


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KPI_STATE_DIR", "KPI_DASHBOARD_PORT"):
        monkeypatch.delenv(name)
    unset = load_settings()
    for name in Settings.model_fields:
        monkeypatch.setenv(f"KPI_{name.upper()}", "")
    assert load_settings() == unset


def test_the_state_folder_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KPI_STATE_DIR", "here")
    assert load_settings().state_dir == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KPI_STATE_DIR", "~/there")
    assert load_settings().state_dir == tmp_path / "there"


@pytest.mark.parametrize(
    "written",
    [
        f"{MAIN_TEXT}, {EMEA_TEXT}",
        f"'{MAIN_TEXT},{EMEA_TEXT}'",
        f'"\n  {MAIN_TEXT}\n  {EMEA_TEXT}\n"',
        f'"{MAIN_TEXT},\n{EMEA_TEXT}"',
    ],
    ids=["one line", "quoted", "a line each", "a line each, with a comma"],
)
def test_several_instances_are_read_from_one_line_or_several_of_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: str
) -> None:
    file = tmp_path / "agency.env"
    file.write_text(f"KPI_BISON_INSTANCES={written}\nKPI_WEB_PORT=4000\n")
    monkeypatch.setenv("KPI_ENV_FILE", str(file))
    settings = load_settings()
    assert settings.bison_instances == (MAIN, EMEA)
    assert settings.web_port == 4000


def test_instances_can_be_handed_over_in_code() -> None:
    assert Settings(bison_instances=(MAIN, EMEA)).bison_instances == (MAIN, EMEA)


def test_the_named_file_is_read_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "agency.env"
    file.write_text(
        "# a comment\nKPI_BISON_ATTEMPTS=3\nKPI_WEB_PORT=4000\nKPI_BISON_INSTANCES=\nOTHER=1\n"
    )
    monkeypatch.setenv("KPI_ENV_FILE", str(file))
    monkeypatch.setenv("KPI_WEB_PORT", "5000")
    settings = load_settings()
    assert (settings.bison_attempts, settings.web_port) == (3, 5000)
    assert settings.bison_instances == ()


def test_a_wrong_value_in_the_file_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "agency.env"
    file.write_text("KPI_BISON_INSTANCES=main https://bison.example hunter2\n")
    message = error_of(monkeypatch, KPI_ENV_FILE=str(file))
    assert "KPI_BISON_INSTANCES: main: its master key is not of the form" in message
    assert "hunter2" not in message


def test_a_named_file_that_does_not_exist_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "agency.env"
    assert error_of(monkeypatch, KPI_ENV_FILE=str(file)) == (
        f"KPI_ENV_FILE names {file}, which is not a file. Check the name."
    )
