"""Secrets that answers hold reach no log, no error, no report of fields and no repr."""

import json
import logging
import pickle
import time
import traceback

import httpx
import pytest

from kpi_pipeline.bison import BisonError, ClientOptions
from kpi_pipeline.bison.answers import ActingWorkspace, WireAnswer, fit
from kpi_pipeline.bison.errors import excerpt, without_secrets
from kpi_pipeline.bison.pages import ListedWorkspaces
from kpi_pipeline_tests.bison.support import (
    HARBOR,
    WORKSPACE_KEY,
    Script,
    answer,
    client_for,
    run,
)

SECRET = "invented-s3cret"
ROW = {"id": 8, "name": "Old Orchard", "webhooks_secret_key": SECRET, "other": [SECRET]}


class Everything:
    """All texts that an error, the logs, the reports and the output show."""

    def __init__(self, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
        self._caplog, self._capfd = caplog, capfd

    def shown(self, *answers: httpx.Response | Exception) -> str:
        """What a check of the key, with these answers, leaves to see; the check must fail."""

        async def work() -> tuple[BisonError, str]:
            options = ClientOptions(attempts=2)
            async with client_for(Script(*answers), options=options) as client:
                with pytest.raises(BisonError) as caught:
                    await client.check_key(HARBOR, WORKSPACE_KEY)
                return caught.value, repr(client.unknown_fields)

        with self._caplog.at_level(logging.DEBUG):
            error, fields = run(work())
        texts = [str(error), repr(error), json.dumps(vars(error)), fields, self._caplog.text]
        texts += traceback.format_exception(error)
        texts += [str(pickle.dumps(error)), *self._capfd.readouterr()]
        return "\n".join(texts)


@pytest.fixture
def everything(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Everything:
    return Everything(caplog, capfd)


QUOTED = f'The workspace {{"id": 8, "webhooks_secret_key": "{SECRET}"}} is locked.'


@pytest.mark.parametrize(
    "response",
    [
        answer({"id": 3, "workspace": ROW}),
        answer({"id": 3, "team": ROW}),
        answer({"id": 3, "workspace": ROW, "team": ROW | {"id": 7}}),
        answer({"id": 3, "workspace": {**ROW, "id": SECRET}}),
        answer({"id": 3, "teams": ROW}),
        answer([ROW]),
        answer(ROW),
        *(
            httpx.Response(status, json={"data": {"success": False, "message": QUOTED}})
            for status in (200, 400, 401, 403, 404, 422, 429, 500)
        ),
        httpx.Response(422, json={"message": "No.", "errors": {"webhooks_secret_key": [SECRET]}}),
        httpx.Response(422, json={"message": "No.", "errors": {"workspace": ROW, "all": [ROW]}}),
        httpx.Response(500, json={"message": f"webhooks_secret_key={SECRET}", "workspace": ROW}),
        httpx.Response(502, text=f"<html>webhooks_secret_key: {SECRET}</html>"),
        httpx.Response(200, text=f'{{"webhooks_secret_key": "{SECRET}"'),
    ],
)
def test_no_secret_of_an_answer_is_shown_anywhere(
    everything: Everything, response: httpx.Response
) -> None:
    shown = everything.shown(response)
    assert "GET /api/users" in shown
    assert SECRET not in shown


def test_no_secret_of_a_broken_connection_is_shown(everything: Everything) -> None:
    lost = httpx.ConnectError(f"no route to https://ann:{SECRET}@bison.example")
    assert SECRET not in everything.shown(lost)


def test_a_model_keeps_of_other_fields_their_names_alone() -> None:
    models: list[WireAnswer] = [
        fit(ActingWorkspace, ROW),
        fit(ListedWorkspaces, {"data": [ROW], "webhooks_secret_key": SECRET}),
    ]
    assert SECRET not in repr(models)
    assert SECRET not in repr([model.model_dump() for model in models])
    assert list(models[0].unknown()) == ["other"]
    assert list(models[1].unknown()) == ["webhooks_secret_key", "data[].other"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("webhooks_secret_key: abc", "webhooks_secret_key: ***"),
        ('{"webhooks_secret_key":"abc", "id": 8}', '{"webhooks_secret_key":"***", "id": 8}'),
        (r"{\"api_token\": \"abc\"}", r"{\"api_token\": \"***\"}"),
        ("{'password' => 'abc'}", "{'password' => '***'}"),
        ('{"secret": "a b; c", "id": 8}', '{"secret": "***", "id": 8}'),
        ("?api_key=abc&day=today", "?api_key=***&day=today"),
        ("Authorization: Bearer abc", "Authorization: Bearer ***"),
        ("the bearer abc is wrong", "the bearer *** is wrong"),
        ("to https://ann:abc@host.example/x", "to https://***@host.example/x"),
        ("The token is invalid.", "The token is invalid."),
        ("No emails scheduled for this period", "No emails scheduled for this period"),
        ("day: The selected day is invalid.", "day: The selected day is invalid."),
    ],
)
def test_what_stands_after_the_name_of_a_secret_is_masked(text: str, left: str) -> None:
    assert without_secrets(text) == left


def test_an_excerpt_masks_what_has_the_form_of_a_token() -> None:
    assert excerpt(f"a {'Qv7' * 12} b {'f0' * 32}") == "a *** b ***"
    assert excerpt("a" * 40 + " 2026-03-04 line-area-chart-stats") == (
        "a" * 40 + " 2026-03-04 line-area-chart-stats"
    )


@pytest.mark.parametrize("text", ["1" * 200_000, "a1" * 100_000, "secret" * 30_000, "key: " * 9000])
def test_masking_takes_no_time_to_speak_of_whatever_the_text(text: str) -> None:
    started = time.process_time()
    assert len(excerpt(without_secrets(text))) <= 200
    assert time.process_time() - started < 1
