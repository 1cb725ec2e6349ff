"""The settings of the web pages: their addresses, names, proxies and passwords."""

import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.web import add_user, remove_user
from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.dagster_home import child_environment
from kpi_pipeline.settings import load_settings
from kpi_pipeline.web.access import require_login

PASSWORD = "correct horse battery"


def problem(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """What the error says about the one wrong setting."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(KpiError) as refused:
        load_settings()
    _, line = str(refused.value).splitlines()
    return line.strip()


def _required(engine: Engine) -> None:
    page = load_settings().dagster_page
    require_login(load_settings(), engine, page.address, page.setting)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.5", "kpi.agency.example"])
def test_an_address_that_others_reach_needs_a_user_or_a_password(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, address: str
) -> None:
    monkeypatch.setenv("KPI_WEB_ADDRESS", address)
    with pytest.raises(KpiError) as refused:
        _required(engine)
    assert str(refused.value) == (
        f"KPI_WEB_ADDRESS: other machines reach the page at {address}, so it needs a login: add a "
        "user with `kpi users add NAME --role editor`, or set KPI_WEB_PASSWORD."
    )
    with engine.begin() as connection:
        add_user(connection, "ann", "viewer", None)
    _required(engine)
    with engine.begin() as connection:
        remove_user(connection, "ann")
    monkeypatch.setenv("KPI_WEB_PASSWORD", PASSWORD)
    _required(engine)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_no_password(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, address: str
) -> None:
    monkeypatch.setenv("KPI_WEB_ADDRESS", address)
    _required(engine)


@pytest.mark.parametrize("weak", ["hunter2", " hunter2 and a blank", "hunter2 \n more", "x" * 201])
def test_a_weak_password_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, weak: str) -> None:
    found = problem(monkeypatch, KPI_WEB_PASSWORD=weak)
    assert found.startswith("KPI_WEB_PASSWORD: it must have 12 to 200 printable characters")
    assert weak not in found


def test_readers_need_a_password_that_differs_from_the_operators(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = problem(monkeypatch, KPI_WEB_READER_PASSWORD=PASSWORD)
    assert alone.startswith("KPI_WEB_READER_PASSWORD: it needs KPI_WEB_PASSWORD")
    same = problem(monkeypatch, KPI_WEB_PASSWORD=PASSWORD)
    assert same == "KPI_WEB_READER_PASSWORD: it must differ from KPI_WEB_PASSWORD"


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        (
            "KPI_WEB_HOSTS",
            "0.0.0.0",
            "0.0.0.0 is no name; KPI_WEB_ADDRESS is the address",
        ),
        ("KPI_WEB_HOSTS", "https://kpi.example", "'https://kpi.example' is not a host name"),
        ("KPI_WEB_HOSTS", "kpi.example:443", "'kpi.example:443' is not a host name"),
        ("KPI_WEB_HOSTS", "*", "'*' is not a host name"),
        ("KPI_WEB_PROXIES", "*", "'*' is not an address"),
        ("KPI_WEB_PROXIES", "proxy.example", "'proxy.example' is not an address"),
        ("KPI_WEB_PATH_PREFIX", "dagster", "'dagster' is not a path"),
        ("KPI_WEB_PATH_PREFIX", "//evil.example", "'//evil.example' is not a path"),
        ("KPI_WEB_USER_HEADER", "X User", "'x user' is not such a header"),
        ("KPI_WEB_USER_HEADER", "Cookie", "'cookie' is not such a header"),
        ("KPI_WEB_USER_HEADER", "X-Forwarded-For", "'x-forwarded-for' is not such a header"),
    ],
)
def test_a_wrong_value_is_named_with_an_example(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    assert problem(monkeypatch, **{variable: value}).startswith(f"{variable}: {sentence}")


def test_the_page_is_reached_under_its_prefix_and_links_name_its_public_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KPI_WEB_PASSWORD", PASSWORD)
    monkeypatch.setenv("KPI_WEB_ADDRESS", "::")
    monkeypatch.setenv("KPI_WEB_PATH_PREFIX", "/dagster/")
    monkeypatch.setenv("KPI_WEB_HOSTS", "kpi.internal, [FD00::7]")
    settings = load_settings()
    assert settings.page_url == settings.local_page_url == "http://[::1]:3000/dagster"
    assert settings.dagster_page.names == ("kpi.internal", "[fd00::7]")
    monkeypatch.setenv("KPI_DAGSTER_URL", "https://kpi.agency.example/dagster")
    settings = load_settings()
    assert settings.page_url == "https://kpi.agency.example/dagster"
    assert settings.local_page_url == "http://[::1]:3000/dagster"
    assert settings.dagster_page.names[-1] == "kpi.agency.example"


def test_the_pages_own_process_reads_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KPI_WEB_PASSWORD", PASSWORD)
    monkeypatch.setenv("KPI_WEB_ADDRESS", "0.0.0.0")
    monkeypatch.setenv("KPI_WEB_HOSTS", "kpi.agency.example,kpi.internal")
    monkeypatch.setenv("KPI_WEB_PROXIES", "10.0.0.0/8 ::1")
    monkeypatch.setenv("KPI_DAGSTER_DATABASE_URL", "postgresql://kpi@db/dagster")
    settings = load_settings()
    for name, value in child_environment(settings).items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings
    assert settings.web_proxies == ("10.0.0.0/8", "::1")


def test_each_page_has_its_own_address_and_the_names_of_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KPI_WEB_HOSTS", "kpi.internal")
    monkeypatch.setenv("KPI_DAGSTER_URL", "https://dagster.agency.example")
    monkeypatch.setenv("KPI_DASHBOARD_URL", "https://kpi.agency.example/kpis")
    monkeypatch.setenv("KPI_DASHBOARD_PATH_PREFIX", "/kpis/")
    monkeypatch.setenv("KPI_DASHBOARD_PORT", "3456")
    settings = load_settings()
    assert settings.dagster_page.names == ("kpi.internal", "dagster.agency.example")
    assert settings.dashboard_page.names == ("kpi.internal", "kpi.agency.example")
    assert settings.dashboard_page.local_url == "http://127.0.0.1:3456/kpis"
