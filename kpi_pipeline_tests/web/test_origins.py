"""From where a browser may use a page: pure rules, without a server."""

import pytest
from starlette.datastructures import Headers

from kpi_pipeline.web.origins import allowed_names, rejected_host, rejected_origin

NAMES = allowed_names(["kpi.agency.example"], "0.0.0.0")
LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:3000", "LocalHost:80", "127.0.0.1:1", "[::1]", "[::1]:3000"),
        *("kpi.agency.example", "KPI.agency.example:8443"),
    ],
)
def test_the_pages_own_names_are_answered_at_any_port(host: str) -> None:
    assert rejected_host(Headers({"host": host}), NAMES) is None


@pytest.mark.parametrize(
    "host",
    [
        *("", "evil.example", "localhost.evil.example", "localhost:3000.evil.example", "0.0.0.0"),
        *("::1", "[::1].evil.example", "[::1]:x", "localhost:x", "localhost@evil.example", "[::2]"),
        *("127.0.0.1, evil.example", "kpi.agency.example."),
    ],
)
def test_any_other_host_is_rejected_with_the_setting_that_would_allow_it(host: str) -> None:
    rejection = rejected_host(Headers({"host": host}), NAMES)
    assert rejection is not None
    assert rejection.status == 421
    assert "add it to KPI_WEB_HOSTS" in rejection.sentence


def test_no_host_and_two_hosts_are_rejected() -> None:
    two = Headers(raw=[(b"host", b"localhost"), (b"host", b"localhost")])
    assert rejected_host(Headers({}), NAMES)
    assert rejected_host(two, NAMES)


def test_the_host_and_what_a_proxy_says_of_it_must_both_be_ours() -> None:
    both = {"host": "127.0.0.1:3000", "x-forwarded-host": "kpi.agency.example"}
    assert rejected_host(Headers(both), NAMES) is None
    for rebound in (
        {"host": "evil.example", "x-forwarded-host": "localhost"},
        {"host": "localhost", "x-forwarded-host": "localhost, evil.example"},
    ):
        assert rejected_host(Headers(rebound), NAMES)


def test_the_address_that_the_page_listens_on_is_a_name_of_it() -> None:
    assert "[fd00::7]" in allowed_names([], "fd00::7")
    assert "10.0.0.5" in allowed_names([], "10.0.0.5")
    assert "0.0.0.0" not in NAMES


@pytest.mark.parametrize(
    ("scheme", "host", "origin", "own"),
    [
        ("http", "localhost:3000", "http://localhost:3000", True),
        ("http", "LOCALHOST:3000", "http://localhost:3000", True),
        ("http", "[::1]:3000", "http://[::1]:3000", True),
        ("http", "kpi.agency.example", "http://kpi.agency.example:80", True),
        # A proxy that does not say so took off TLS.
        ("http", "kpi.agency.example", "https://kpi.agency.example", True),
        ("https", "kpi.agency.example:443", "https://kpi.agency.example", True),
        ("wss", "kpi.agency.example", "https://kpi.agency.example", True),
        ("https", "kpi.agency.example", "http://kpi.agency.example", False),
        ("http", "localhost:3000", "http://localhost:3001", False),
        ("http", "localhost:3000", "http://127.0.0.1:3000", False),
        ("http", "localhost:3000", "http://localhost:3000.evil.example", False),
        ("http", "localhost:3000", "null", False),
        ("http", "localhost:3000", "", False),
        ("http", "localhost", "file://localhost", False),
        ("http", "localhost", "http://localhost:x", False),
    ],
)
def test_an_origin_must_be_the_pages_host_port_and_scheme(
    scheme: str, host: str, origin: str, own: bool
) -> None:
    headers = Headers({"host": host, "origin": origin})
    for method in ("GET", "POST", "WEBSOCKET"):
        rejection = rejected_origin(scheme, method, headers)
        assert (rejection is None) is own


def test_an_origin_may_be_the_host_that_a_proxy_names() -> None:
    headers = {
        "host": "127.0.0.1:3000",
        "x-forwarded-host": "kpi.agency.example",
        "origin": "https://kpi.agency.example",
    }
    assert rejected_origin("https", "POST", Headers(headers)) is None
    foreign = {**headers, "origin": "https://evil.example"}
    rejection = rejected_origin("https", "POST", Headers(foreign))
    assert rejection is not None
    assert "'https://evil.example', and this page is 'kpi.agency.example'" in rejection.sentence


def test_programs_without_these_headers_are_no_web_page() -> None:
    for method in ("GET", "POST", "WEBSOCKET"):
        assert rejected_origin("http", method, Headers({"host": "localhost"})) is None


def test_a_link_leads_to_the_page_from_anywhere_and_nothing_else_does() -> None:
    assert rejected_origin("http", "GET", Headers({"host": "localhost", **LINK})) is None
    for method, changed in (
        ("POST", {}),
        ("GET", {"sec-fetch-dest": "iframe"}),
        ("GET", {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}),
        ("GET", {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}),
        ("WEBSOCKET", {"sec-fetch-mode": "websocket"}),
    ):
        assert rejected_origin("http", method, Headers({"host": "localhost", **LINK, **changed}))
