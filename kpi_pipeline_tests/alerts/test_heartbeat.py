"""Pings of the external dead-man's switch, and that failures of it do no harm."""

import logging
import secrets

import httpx
import pytest
from pydantic import SecretStr

from kpi_pipeline.alerts.heartbeat import Beat, ping


def test_success_pings_the_url_alone_and_start_and_fail_extend_its_path() -> None:
    called: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        called.append(f"{request.method} {request.url}")
        return httpx.Response(200)

    transport = httpx.MockTransport(answer)
    for beat in Beat:
        ping(SecretStr("https://watch.example/abc/"), beat, transport=transport)
    url = SecretStr("https://watch.example/abc?create=1")
    ping(url, Beat.FAIL, run_id="r1", transport=transport)

    assert called == [
        "GET https://watch.example/abc/start",
        "GET https://watch.example/abc",
        "GET https://watch.example/abc/fail",
        "GET https://watch.example/abc/fail?create=1&rid=r1",
    ]


def test_without_a_url_nothing_is_pinged() -> None:
    ping(None, Beat.SUCCESS, transport=httpx.MockTransport(lambda _: pytest.fail("called")))


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/{}", "nonsense {}", "https://[{}"])
def test_a_switch_that_cannot_be_reached_is_a_warning_without_its_url(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = secrets.token_urlsafe(16)
    ping(SecretStr(address.format(secret)), Beat.START)
    (warning,) = [it for it in caplog.records if it.levelno >= logging.WARNING]
    assert "KPI_HEARTBEAT_URL could not be pinged" in warning.getMessage()
    assert secret not in caplog.text


def test_an_error_status_of_the_switch_is_a_warning_too(caplog: pytest.LogCaptureFixture) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(404))
    ping(SecretStr("https://watch.example/abc"), Beat.SUCCESS, transport=transport)
    assert "HTTPStatusError" in caplog.text
    assert "abc" not in caplog.text
