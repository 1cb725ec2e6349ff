"""The settings of Dagster's page: its addresses, names, proxies and passwords."""

import pytest

from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.dagster_home import child_environment
from kpi_pipeline.settings import load_settings

PASSWORD = "correct horse battery"


def problem(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """What the error says about the one wrong setting."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(KpiError) as refused:
        load_settings()
    _, line = str(refused.value).splitlines()
    return line.strip()


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.0.0.5", "kpi.agency.example"])
def test_an_address_that_others_reach_needs_a_password(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    assert problem(monkeypatch, KPI_WEB_ADDRESS=address) == (
        f"KPI_WEB_ADDRESS: other machines reach Dagster's page at {address}, so it needs a login: "
        "set KPI_WEB_PASSWORD"
    )
    monkeypatch.setenv("KPI_WEB_PASSWORD", PASSWORD)
    assert load_settings().web_address == address


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_needs_no_password(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("KPI_WEB_ADDRESS", address)
    assert load_settings().web_password is None


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
    assert settings.web_names == ("kpi.internal", "[fd00::7]")
    monkeypatch.setenv("KPI_DAGSTER_URL", "https://kpi.agency.example/dagster")
    settings = load_settings()
    assert settings.page_url == "https://kpi.agency.example/dagster"
    assert settings.local_page_url == "http://[::1]:3000/dagster"
    assert settings.web_names[-1] == "kpi.agency.example"


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
