"""The public URL of an instance's webhooks, put together from settings."""

import pytest
from pydantic import SecretStr

from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings, load_settings
from kpi_pipeline.settings.webhooks import has_webhooks, shown_url, webhook_url

SECRET = "invented-secret-of-32-characters"
ADDRESS = "https://kpi.agency.example"


def settings(**changed: object) -> Settings:
    return Settings(gateway_url=ADDRESS, webhook_secret={"eu_west": SecretStr(SECRET)}).model_copy(
        update=changed
    )


def test_the_url_is_the_gateways_address_with_the_secret_of_the_instance() -> None:
    url = webhook_url(settings(), "eu-west")
    assert url.get_secret_value() == f"{ADDRESS}/webhooks/bison/{SECRET}"
    assert SECRET not in repr(url)
    assert shown_url(settings()) == f"{ADDRESS}/webhooks/bison/…"


def test_what_is_missing_is_named() -> None:
    with pytest.raises(KpiError, match="KPI_GATEWAY_URL is not set"):
        webhook_url(settings(gateway_url=None), "eu-west")
    with pytest.raises(KpiError, match="set KPI_WEBHOOK_SECRET_MAIN to the output of"):
        webhook_url(settings(), "main")


def test_an_instance_has_webhooks_with_an_address_and_a_secret() -> None:
    assert has_webhooks(settings(), "eu-west")
    assert not has_webhooks(settings(), "main")
    assert not has_webhooks(settings(gateway_url=None), "eu-west")


@pytest.mark.parametrize("written", [ADDRESS, f"{ADDRESS}/", f" {ADDRESS} "])
def test_the_gateways_address_may_end_in_a_slash(
    monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("KPI_GATEWAY_URL", written)
    assert load_settings().gateway_url == ADDRESS


@pytest.mark.parametrize(
    "written",
    [
        "kpi.agency.example",
        "ftp://kpi.agency.example",
        f"{ADDRESS}/webhooks/bison/{SECRET}",
        f"https://kpi:{SECRET}@kpi.agency.example",
        f"{ADDRESS}?{SECRET}",
        "https://",
    ],
)
def test_an_address_that_is_more_or_less_than_a_server_is_not_valid_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setenv("KPI_GATEWAY_URL", written)
    with pytest.raises(KpiError, match=r"KPI_GATEWAY_URL: its address .+ https://HOST") as error:
        load_settings()
    assert SECRET not in str(error.value)
    assert "agency" not in str(error.value)
