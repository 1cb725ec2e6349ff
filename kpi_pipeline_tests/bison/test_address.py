"""Whether Email Bison answers at an address, before any key is sent to it."""

import httpx
import pytest

from kpi_pipeline.bison.address import address_problem

URL = "https://bison.agency.example"


def _problem(status: int, *, headers: dict[str, str] | None = None, **body: object) -> str | None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(status, headers=headers, **body)  # type: ignore[arg-type]

    problem = address_problem(URL, transport=httpx.MockTransport(answer))
    [request] = seen
    assert request.url.path == "/api/users"
    assert "Authorization" not in request.headers
    return problem


@pytest.mark.parametrize("status", [401, 403])
def test_an_api_that_asks_for_a_key_is_email_bisons(status: int) -> None:
    assert _problem(status, json={"message": "Unauthenticated."}) is None


def test_a_redirect_names_where_it_leads_without_its_path() -> None:
    problem = _problem(302, headers={"Location": "https://app.bison.example/login?token=abc"})
    assert problem is not None
    assert "redirects to https://app.bison.example. Give the address" in problem
    assert "token" not in problem


@pytest.mark.parametrize(
    ("status", "body"), [(200, "<html>"), (401, "<html>"), (404, "{}"), (200, "{}")]
)
def test_another_web_server_is_no_email_bison(status: int, body: str) -> None:
    problem = _problem(status, text=body)
    assert problem is not None
    assert f"{URL} answers {status}, but not as Email Bison's API does." in problem


def test_an_instance_that_is_down_is_no_wrong_address() -> None:
    assert _problem(503) == f"{URL} answers 503. Try again when Email Bison is up."


def test_a_server_that_gives_no_answer_is_named_with_the_reason() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[Errno -2] Name or service not known", request=request)

    problem = address_problem(URL, transport=httpx.MockTransport(answer))
    assert problem is not None
    assert problem.startswith(f"{URL} gives no answer: ConnectError [Errno -2] Name or service")
