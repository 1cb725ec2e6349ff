"""The variant `paging`: how long lists come."""

from typing import Any

import httpx
import pytest

from kpi_pipeline_tests.bison_sandbox.running import WORKSPACES, Bison

REPLIES = "/api/replies"
HOOKS = "/api/webhook-url"
LISTS = [WORKSPACES, REPLIES, HOOKS]


@pytest.fixture(autouse=True)
def _many_webhooks(bison: Bison) -> None:
    for number in range(20):
        body = {"name": str(number), "url": "https://kpi.example/in", "events": ["email_sent"]}
        assert bison.call("POST", HOOKS, json=body).status_code == 201


def ids(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [row["id"] for row in answer.json()["data"]]


def by_pages(bison: Bison, path: str, **params: Any) -> list[int]:
    found: list[int] = []
    for page in range(1, 100):
        answer = bison.get(path, page=page, **params)
        found += ids(answer)
        if page == answer.json()["meta"]["last_page"]:
            break
    return found


def by_cursor(bison: Bison, path: str, **params: Any) -> list[int]:
    found: list[int] = []
    cursor = None
    while True:
        more: dict[str, str] = {} if cursor is None else {"cursor": cursor}
        answer = bison.get(path, **params, **more)
        found += ids(answer)
        cursor = answer.json()["meta"]["next_cursor"]
        if cursor is None:
            return found


@pytest.mark.parametrize("path", LISTS)
def test_pages_ignore_that_a_cursor_was_asked_for(bison: Bison, path: str) -> None:
    answer = bison.get(path, pagination_type="cursor").json()
    assert answer["meta"] == bison.get(path).json()["meta"]
    assert answer["meta"]["total"] == len(by_pages(bison, path)) > 15


@pytest.mark.parametrize("path", LISTS)
def test_a_cursor_leads_through_all_rows(bison: Bison, path: str) -> None:
    rows = by_pages(bison, path)
    bison.variants(paging="cursor")
    assert by_cursor(bison, path) == rows
    first = bison.get(path, page=2).json()
    assert [row["id"] for row in first["data"]] == rows[:15]
    url = f"{str(bison.http.base_url).rstrip('/')}{path}"
    following = first["meta"]["next_cursor"]
    assert first["meta"] == {
        "path": url,
        "per_page": 15,
        "next_cursor": following,
        "prev_cursor": None,
    }
    assert first["links"]["next"].startswith(f"{url}?cursor=")
    assert {first["links"][name] for name in ("first", "last", "prev")} == {None}


def test_a_cursor_leads_back_too(bison: Bison) -> None:
    bison.variants(paging="cursor")
    first = bison.get(WORKSPACES).json()
    second = bison.call("GET", first["links"]["next"]).json()
    assert second["meta"]["next_cursor"] is None
    assert second["links"]["next"] is None
    assert bison.call("GET", second["links"]["prev"]).json() == first


@pytest.mark.parametrize("path", LISTS)
def test_a_cursor_may_be_offered_to_those_who_ask(bison: Bison, path: str) -> None:
    rows = by_pages(bison, path)
    bison.variants(paging="offer_cursor")
    assert by_pages(bison, path) == rows
    assert "total" in bison.get(path, pagination_type="page").json()["meta"]
    assert by_cursor(bison, path, pagination_type="cursor") == rows


def test_the_link_of_a_cursor_forgets_the_filter(bison: Bison) -> None:
    filtered, every = by_pages(bison, REPLIES, status="interested"), by_pages(bison, REPLIES)
    bison.variants(paging="cursor")
    assert by_cursor(bison, REPLIES, status="interested") == filtered
    first = bison.get(REPLIES, status="interested").json()
    assert [row["id"] for row in first["data"]] == filtered[:15]
    followed = bison.call("GET", first["links"]["next"])
    assert ids(followed) == every[15:30] != filtered[15:30]


@pytest.mark.parametrize("cursor", ["nonsense", "%%%", "L2FwaS93b3Jrc3BhY2VzL3YxLjEgeA"])
def test_a_cursor_of_another_list_or_of_none_is_refused(bison: Bison, cursor: str) -> None:
    bison.variants(paging="cursor")
    other = bison.get(REPLIES).json()["meta"]["next_cursor"]
    for wrong in (cursor, other):
        refused = bison.get(WORKSPACES, cursor=wrong)
        assert refused.status_code == 422
        assert list(refused.json()["data"]["errors"]) == ["cursor"]


@pytest.mark.parametrize(("paging", "status"), [("page", 422), ("cursor", 200), ("whole", 200)])
def test_only_pages_end_at_the_thousandth(bison: Bison, paging: str, status: int) -> None:
    bison.variants(paging=paging)
    assert bison.get(REPLIES, page=1001).status_code == status


@pytest.mark.parametrize("path", LISTS)
def test_a_list_may_come_whole(bison: Bison, path: str) -> None:
    rows = by_pages(bison, path)
    bison.variants(paging="whole")
    answer = bison.get(path, page=2)
    assert ids(answer) == rows
    assert list(answer.json()) == ["data"]


@pytest.mark.parametrize("path", LISTS)
def test_a_walk_may_begin_with_a_page_and_go_on_by_cursor(bison: Bison, path: str) -> None:
    rows = by_pages(bison, path)
    bison.variants(paging="changing")
    for page in (None, 1):
        first = bison.get(path, page=page).json()
        assert first["meta"]["total"] == len(rows)
    second = bison.call("GET", first["links"]["next"])
    assert ids(second) == rows[:15]
    meta = second.json()["meta"]
    assert "total" not in meta
    third = bison.get(path, cursor=meta["next_cursor"])
    assert ids(third) == rows[15:30]
    assert "next_cursor" in third.json()["meta"]
