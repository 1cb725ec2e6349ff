import json
import logging
import pickle

import httpx
import pytest
from pydantic import SecretStr

from kpi_pipeline.bison import (
    BisonError,
    BisonInstance,
    ClientOptions,
    MalformedAnswer,
    RateLimited,
    RefusedRequest,
    RejectedKey,
    Unavailable,
    WorkspaceGone,
)
from kpi_pipeline.bison.calls import BearerKey
from kpi_pipeline.bison.errors import excerpt
from kpi_pipeline_tests.bison.support import (
    DAY,
    HARBOR,
    MASTER_KEY,
    SERIES,
    WORKSPACE_KEY,
    Script,
    answer,
    client_for,
    error_answer,
    run,
)

SECRET = WORKSPACE_KEY.get_secret_value()
ECHO = f"Bearer {SECRET} of {SECRET.partition('|')[2]} is wrong"


def error_of(step: httpx.Response | Exception, key: SecretStr = WORKSPACE_KEY) -> BisonError:
    async def work() -> None:
        async with client_for(Script(step), options=ClientOptions(attempts=2)) as client:
            await client.read_as(HARBOR, key, lambda reader: reader.daily_series(DAY, DAY))

    with pytest.raises(BisonError) as caught:
        run(work())
    return caught.value


FAILURES: list[tuple[httpx.Response | Exception, type[BisonError]]] = [
    (error_answer(401, ECHO), RejectedKey),
    (error_answer(403, ECHO), RejectedKey),
    (error_answer(404, ECHO), WorkspaceGone),
    (error_answer(429, ECHO), RateLimited),
    (error_answer(503, ECHO), Unavailable),
    (httpx.ConnectError(ECHO), Unavailable),
    (error_answer(422, ECHO), RefusedRequest),
    (httpx.Response(302, headers={"Location": "/login"}), RefusedRequest),
    (answer({"success": False, "message": ECHO}), MalformedAnswer),
    (httpx.Response(200, html=f"<html>{ECHO}</html>"), MalformedAnswer),
    (answer([{"label": ECHO}]), MalformedAnswer),
]


@pytest.mark.parametrize(("step", "kind"), FAILURES)
def test_each_error_names_client_call_and_remedy_and_holds_no_key(
    step: httpx.Response | Exception, kind: type[BisonError]
) -> None:
    error = error_of(step)
    assert type(error) is kind
    assert (error.client, error.call) == ("blue-harbor", f"GET {SERIES}")
    assert str(error).startswith(f"blue-harbor: GET {SERIES} ")
    assert str(error).endswith(f". {error.remedy}.")
    for shown in (str(error), repr(error), repr(error.__cause__), json.dumps(vars(error))):
        assert "Ww5Ww5" not in shown
        assert "<" not in shown.replace("<class", "")


def test_each_kind_of_error_has_a_remedy_of_its_own() -> None:
    remedies = {kind: error_of(step).remedy for step, kind in FAILURES}
    assert "api_key" in remedies[RejectedKey]
    assert "inactive" in remedies[WorkspaceGone]
    assert "KPI_BISON_CALLS_PER_SECOND" in remedies[RateLimited]
    assert "is up" in remedies[Unavailable]
    assert len(set(remedies.values())) == len(remedies)


def test_a_rejected_master_key_is_corrected_in_the_settings_and_named_for_the_instance() -> None:
    async def work() -> None:
        async with client_for(Script(error_answer(401, "Unauthenticated."))) as client:
            await client.list_workspaces()

    with pytest.raises(RejectedKey) as caught:
        run(work())
    assert str(caught.value) == (
        "instance main: GET /api/workspaces/v1.1 answered 401 (Unauthenticated). "
        "Give the instance a valid super-admin key in KPI_BISON_INSTANCES."
    )


def test_a_404_without_a_client_points_at_the_address() -> None:
    async def work() -> None:
        async with client_for(Script(httpx.Response(404, html="<h1>nginx</h1>"))) as client:
            await client.list_workspaces()

    with pytest.raises(RefusedRequest, match=r"answered 404\. Check the instance's address in KPI"):
        run(work())


def test_a_422_names_the_field_that_was_rejected() -> None:
    body = {"message": "Invalid.", "errors": {"end_date": ["must be a date"]}}
    error = error_of(httpx.Response(422, json={"data": body}))
    assert "422 (Invalid.; end_date: must be a date)" in str(error)


def test_an_excerpt_is_one_clean_line_of_at_most_200_characters() -> None:
    assert excerpt("a\x00b\r\n\tc\ud800d") == "a b c d"
    assert len(excerpt("ä" * 5000)) == 200


@pytest.mark.parametrize("at", [0, 150, 170, 190, 197, 200])
def test_an_excerpt_masks_whatever_looks_like_a_key_even_where_it_is_cut(at: int) -> None:
    for key in ("99|" + "Zz9" * 16, "99%7C" + "Zz9" * 16):
        assert "Zz" not in excerpt("x" * at + " " + key)


def test_an_excerpt_masks_the_key_in_use_whatever_it_looks_like() -> None:
    assert excerpt("key odd-1 or odd-1", SecretStr("odd-1")) == "key *** or ***"


def test_errors_can_be_pickled() -> None:
    for step, _ in FAILURES:
        error = error_of(step)
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_no_repr_shows_a_key() -> None:
    request = next(BearerKey(WORKSPACE_KEY).auth_flow(httpx.Request("GET", "https://b.example")))
    assert request.headers["Authorization"] == f"Bearer {SECRET}"
    shown = [BearerKey(WORKSPACE_KEY), BisonInstance("main", "https://b.example", MASTER_KEY)]
    assert "Ww5" not in repr([*shown, request, request.headers])
    assert "Mm3" not in repr(shown)


def test_a_retry_is_logged_as_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        error_of(error_answer(503, ECHO))
    [record] = caplog.records
    assert record.getMessage() == (
        f"blue-harbor: GET {SERIES} answered 503 (Bearer *** of *** is wrong) at try 1 of 2. "
        "Retrying in 0.0 s."
    )


def test_a_retry_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    error_of(error_answer(503, "Down"))
    assert capsys.readouterr().out == ""
