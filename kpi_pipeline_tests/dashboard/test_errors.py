"""What an error of ours shows: a sentence, with the headers of every page, and nothing else."""

import httpx
import pytest

from kpi_pipeline.dashboard.api import routes
from kpi_pipeline.dashboard.overview import page as overview
from kpi_pipeline_tests.dashboard.pages import valid


def test_an_error_of_ours_shows_a_sentence_and_is_as_safe_as_every_page(
    browse: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("postgresql://kpi:a-password@db")

    usual = browse.get("/").headers
    monkeypatch.setattr(overview, "read_page", fail)
    monkeypatch.setattr(routes, "all_clients", fail)
    for path in ("/", "/api/clients"):
        answer = browse.get(path)
        assert answer.status_code == 500
        assert "Something went wrong here" in answer.text
        assert "a-password" not in answer.text
        policy = "content-security-policy"
        assert answer.headers[policy] == usual[policy]
        assert answer.headers["x-content-type-options"] == "nosniff"
    valid(browse.get("/").text)


def test_an_address_with_a_sentence_keeps_what_the_answer_says_to_programs(
    browse: httpx.Client,
) -> None:
    # The pages of this browser have no server that runs.
    answer = browse.get("/live")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert set(browse.put("/").headers["allow"].split(", ")) == {"GET", "HEAD"}
