"""A misspelt setting, or one in a file that cannot be read, is never ignored."""

from pathlib import Path

import pytest

from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings, load_settings
from kpi_pipeline_tests.test_settings import error_of, problems

SECRET = "hunter2" + "x" * 40


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("KPI_TIMEZON", "KPI_TIMEZONE"),
        ("KPI_TIME_ZONE", "KPI_TIMEZONE"),
        ("KPI_STALE_AFTER", "KPI_STALE_AFTER_HOURS"),
        ("KPI_WEBPORT", "KPI_WEB_PORT"),
        ("KPI_WEP_PORT", "KPI_WEB_PORT"),
        ("KPI_DATABASE", "KPI_DATABASE_URL"),
        ("KPI_ALERT_URL", "KPI_ALERT_URLS"),
        ("KPI_ENVFILE", "KPI_ENV_FILE"),
        ("KPI_WEBHOOK_SECRETS_MAIN", "KPI_WEBHOOK_SECRET_NAME"),
        ("KPI_WEBHOOK_SECRET_", "KPI_WEBHOOK_SECRET_NAME"),
        ("kpi_timezon", "KPI_TIMEZONE"),
    ],
)
def test_a_misspelt_variable_is_named_with_the_nearest_right_one_and_without_its_value(
    monkeypatch: pytest.MonkeyPatch, misspelt: str, meant: str
) -> None:
    (problem,) = problems(monkeypatch, **{misspelt: SECRET})
    assert problem == (f"{misspelt} (in the environment) is not a setting; did you mean {meant}?")


def test_the_setting_of_an_earlier_version_is_refused_with_the_name_of_the_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert problems(monkeypatch, KPI_HOURLY_REFRESH="on") == [
        "KPI_HOURLY_REFRESH (in the environment) is not a setting any more; KPI_REFRESH_MINUTES "
        "replaces it: the minutes between two refreshes (15 unless set; 60 is every hour), or `off`"
    ]


def test_a_variable_that_resembles_no_setting_is_named_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert problems(monkeypatch, KPI_QQQQQQ=SECRET) == [
        "KPI_QQQQQQ (in the environment) is not a setting"
    ]


def test_misspelt_lines_of_the_file_are_named_with_their_numbers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "agency.env"
    file.write_text(
        "# KPI_NOTE is a comment\n\nKPI_TIME_ZONE=Asia/Kolkata\n"
        "export KPI_ALERT_URLS='slack://a\nslack://b'\n\n\nKPI_STALE_AFTER=5\nOTHER=1\n"
    )
    assert problems(monkeypatch, KPI_ENV_FILE=str(file)) == [
        f"KPI_TIME_ZONE (line 3 of {file}) is not a setting; did you mean KPI_TIMEZONE?",
        f"KPI_STALE_AFTER (line 8 of {file}) is not a setting; did you mean KPI_STALE_AFTER_HOURS?",
    ]


@pytest.mark.parametrize(
    "line", ["KPI_SECRET_KEY hunter2", "KPI_SECRET_KEY", "KPI_SECRET_KEY='hunter2"]
)
def test_a_line_of_the_file_that_sets_nothing_is_named_by_its_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str
) -> None:
    file = tmp_path / "agency.env"
    file.write_text(f"KPI_WEB_PORT=4000\n\n{line}\n")
    message = error_of(monkeypatch, KPI_ENV_FILE=str(file))
    assert message.startswith(
        f"Line 3 of the settings file {file} cannot be read. Write NAME=VALUE"
    )
    assert "hunter2" not in message


def test_variables_of_others_and_of_the_tests_are_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "KPI_TEST_BROWSER": "required",
        "KPI_WEBHOOK_SECRET_EU_WEST": "abcDEFghi123456789012345",
        "PATHS_OF_KPI_X": "1",
        # Kubernetes, for services called kpi-page and kpi.
        "KPI_PAGE_SERVICE_HOST": "10.0.0.7",
        "KPI_PAGE_SERVICE_PORT": "3000",
        "KPI_PAGE_SERVICE_PORT_HTTP": "3000",
        "KPI_PAGE_PORT": "tcp://10.0.0.7:3000",
        "KPI_PAGE_PORT_3000_TCP": "tcp://10.0.0.7:3000",
        "KPI_PAGE_PORT_3000_TCP_ADDR": "10.0.0.7",
        "KPI_SERVICE_HOST": "10.0.0.8",
    }.items():
        monkeypatch.setenv(name, value)
    assert set(load_settings().webhook_secret) == {"eu_west"}


def test_a_webhook_secret_without_its_instance_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert problems(monkeypatch, KPI_WEBHOOK_SECRET=SECRET) == [
        "KPI_WEBHOOK_SECRET: write one for each instance, as in KPI_WEBHOOK_SECRET_NAME"
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "agency.env"
    file.write_text("KPI_TIMEZONE=Asia/Kolkata\n", encoding="utf-8-sig")
    monkeypatch.setenv("KPI_ENV_FILE", str(file))
    assert load_settings().timezone.key == "Asia/Kolkata"


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"]
)
def test_a_file_that_is_not_utf_8_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str
) -> None:
    file = tmp_path / "agency.env"
    file.write_bytes("# Zürich\nKPI_TIMEZONE=Asia/Kolkata\n".encode(encoding))
    assert error_of(monkeypatch, KPI_ENV_FILE=str(file)) == (
        f"The settings file {file} is not UTF-8 text. Save it again as UTF-8."
    )


def test_the_file_of_the_working_folder_is_read_unless_another_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("KPI_WEB_PORT=4000\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings().web_port == 3000
    monkeypatch.delenv("KPI_ENV_FILE")
    assert load_settings().web_port == 4000
    monkeypatch.chdir("/")
    assert load_settings().web_port == 3000


def test_a_folder_called_env_is_no_settings_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KPI_ENV_FILE")
    assert load_settings().web_port == 3000


def test_a_file_that_cannot_be_read_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "agency.env"
    file.touch()

    def refuse(_file: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert error_of(monkeypatch, KPI_ENV_FILE=str(file)) == (
        f"The settings file {file} cannot be read: Permission denied."
    )


def test_each_name_of_a_setting_is_accepted_and_each_with_a_letter_missing_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for field in Settings.model_fields:
        name = f"KPI_{field.upper()}"
        for misspelt in {name[:-1], name[:5] + name[6:]}:
            with monkeypatch.context() as patch:
                patch.setenv(misspelt, "")
                with pytest.raises(KpiError, match=f"^[^\n]+\n  {misspelt} .+ not a setting"):
                    load_settings()
