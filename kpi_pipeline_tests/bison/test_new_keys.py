"""Making a workspace key through the master key."""

import json

import httpx
import pytest
from pydantic import SecretStr

from kpi_pipeline.bison import (
    BisonError,
    MalformedAnswer,
    MissingKey,
    RateLimited,
    RejectedKey,
    Unavailable,
    WorkspaceRef,
)
from kpi_pipeline_tests.bison.support import (
    HARBOR,
    LIST,
    MASTER_KEY,
    Handler,
    LocalLock,
    Script,
    answer,
    client_for,
    error_answer,
    run,
)

TOKEN = "41|" + "Nn9" * 16
MADE = {"id": 41, "name": "kpi_pipeline", "plain_text_token": TOKEN, "abilities": ["api-user"]}


def create(
    handler: Handler,
    ref: WorkspaceRef = HARBOR,
    lock: LocalLock | None = None,
    master_key: SecretStr | None = MASTER_KEY,
) -> SecretStr:
    async def work() -> SecretStr:
        async with client_for(handler, lock=lock, master_key=master_key) as client:
            return await client.create_key(ref, "kpi_pipeline")

    return run(work())


def test_a_key_is_made_in_one_call_with_the_master_key_and_without_a_switch() -> None:
    script, lock = Script(answer(MADE)), LocalLock()
    assert create(script, lock=lock).get_secret_value() == TOKEN
    [request] = script.requests
    assert (request.method, request.url.path) == ("POST", f"{LIST}/7/api-tokens")
    assert json.loads(request.content) == {"name": "kpi_pipeline"}
    assert request.headers["Authorization"].endswith(MASTER_KEY.get_secret_value())
    # One user of the master key at a time, whatever it does.
    assert lock.holders == ["main"]


@pytest.mark.parametrize(
    "failure",
    [
        error_answer(500, "Server Error"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut off"),
    ],
)
def test_a_call_without_an_answer_is_not_sent_again_for_it_may_have_made_a_key(
    failure: httpx.Response | Exception,
) -> None:
    script = Script(failure, answer(MADE))
    with pytest.raises(Unavailable):
        create(script)
    assert len(script.requests) == 1


def test_a_call_that_got_a_429_is_sent_again() -> None:
    limited = error_answer(429, "Slow", **{"Retry-After": "1"})
    script = Script(limited, limited, answer(MADE))
    assert create(script).get_secret_value() == TOKEN
    with pytest.raises(RateLimited, match="at try 5 of 5"):
        create(Script(limited))


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"id": 41},
        MADE | {"plain_text_token": None},
        MADE | {"plain_text_token": ""},
        MADE | {"plain_text_token": "Nn9" * 16},
        [MADE],
        {"token": MADE},
    ],
)
def test_an_answer_without_a_key_is_malformed_and_repeats_nothing_of_it(data: object) -> None:
    with pytest.raises(MalformedAnswer) as caught:
        create(Script(answer(data)))
    assert "Nn9" not in str(caught.value)


def test_a_rejected_master_key_is_an_error_with_its_remedy() -> None:
    with pytest.raises(RejectedKey, match="super-admin key in KPI_BISON_INSTANCES"):
        create(Script(error_answer(403, "This action is unauthorized.")))


def test_without_a_master_key_nothing_is_sent() -> None:
    script = Script(answer(MADE))
    with pytest.raises(MissingKey, match="its super-admin key in KPI_BISON_INSTANCES"):
        create(script, master_key=None)
    assert script.requests == []


def test_a_client_of_another_instance_gets_no_key_from_this_one() -> None:
    script = Script(answer(MADE))
    with pytest.raises((BisonError, ValueError), match="instance second"):
        create(script, WorkspaceRef("far-shore", "second", 7))
    assert script.requests == []
