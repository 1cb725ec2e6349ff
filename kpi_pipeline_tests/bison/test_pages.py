"""Lists come in pages, by number or by cursor, and are read whole or not at all."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx
import pytest

from kpi_pipeline.bison import MalformedAnswer, RefusedRequest, WorkspaceReader
from kpi_pipeline_tests.bison.support import (
    HARBOR,
    WORKSPACE_KEY,
    Handler,
    Script,
    answer,
    client_for,
    error_answer,
    run,
)

T = TypeVar("T")


def read(handler: Handler, work: Callable[[WorkspaceReader], Awaitable[T]]) -> T:
    async def reading() -> T:
        async with client_for(handler) as client:
            return (await client.read_as(HARBOR, WORKSPACE_KEY, work)).value

    return run(reading())


def ids(handler: Handler) -> list[int]:
    """Of the workspaces, in order."""

    async def work() -> list[int]:
        async with client_for(handler) as client:
            return [workspace.id for workspace in await client.list_workspaces()]

    return run(work())


def planned(handler: Handler) -> int:
    return read(handler, lambda reader: reader.sending_plan("tomorrow"))


def rows(numbers: tuple[int, ...]) -> list[dict[str, Any]]:
    """Workspaces that are campaigns as well, each of as many emails as its number."""
    return [
        {"id": n, "name": f"Client {n}", "campaign_id": n, "emails_being_sent": n} for n in numbers
    ]


def cursor_page(*numbers: int, following: str | None = None) -> httpx.Response:
    links = {"next": f"https://bison.example/api/workspaces/v1.1?cursor={following}"}
    meta = {"path": "/", "per_page": 15, "next_cursor": following, "prev_cursor": None}
    return answer(rows(numbers), links=links, meta=meta)


def numbered_page(
    number: int, *numbers: int, last: int, total: int | None = None
) -> httpx.Response:
    meta = {"current_page": number, "last_page": last, "per_page": 15, "total": total}
    return answer(rows(numbers), meta=meta)


def queries(script: Script) -> list[dict[str, str]]:
    return [dict(request.url.params) for request in script.requests]


def test_the_filters_go_along_with_every_request_by_number() -> None:
    script = Script(numbered_page(1, 9, 7, last=2, total=3), numbered_page(2, 3, last=2, total=3))
    assert planned(script) == 19
    assert queries(script) == [{"day": "tomorrow", "page": "1"}, {"day": "tomorrow", "page": "2"}]


def test_cursors_are_followed_and_the_filters_go_along_with_every_request() -> None:
    script = Script(
        cursor_page(9, 7, following="abc"), cursor_page(following="xyz"), cursor_page(3)
    )
    assert planned(script) == 19
    by_cursor = {"day": "tomorrow", "pagination_type": "cursor"}
    assert queries(script) == [
        {"day": "tomorrow", "page": "1"},
        by_cursor | {"cursor": "abc"},
        by_cursor | {"cursor": "xyz"},
    ]


def test_a_change_of_mode_in_mid_walk_starts_again_and_loses_and_doubles_nothing() -> None:
    script = Script(
        numbered_page(1, 9, 7, last=2, total=4),
        cursor_page(9, 7, following="abc"),
        cursor_page(5, 3),
    )
    assert ids(script) == [9, 7, 5, 3]

    script = Script(
        cursor_page(9, 7, following="abc"),
        numbered_page(1, 9, 7, last=2, total=4),
        numbered_page(2, 5, 3, last=2, total=4),
    )
    assert ids(script) == [9, 7, 5, 3]


def test_an_instance_that_changes_its_mode_again_and_again_is_an_error() -> None:
    script = Script(
        numbered_page(1, 9, last=3, total=3),
        cursor_page(9, following="abc"),
        numbered_page(1, 9, last=3, total=3),
        cursor_page(9, following="xyz"),
    )
    with pytest.raises(MalformedAnswer, match="changed its way of paging again and again"):
        ids(script)


def test_a_cursor_that_comes_twice_is_an_error_and_not_an_endless_loop() -> None:
    script = Script(cursor_page(9, following="abc"), cursor_page(7, following="abc"))
    with pytest.raises(MalformedAnswer, match="a cursor that it had given before"):
        ids(script)
    assert len(script.requests) == 2


def test_after_a_change_of_mode_the_total_that_was_named_first_must_still_be_reached() -> None:
    script = Script(numbered_page(1, 9, last=2, total=4), cursor_page(9, 7))
    with pytest.raises(MalformedAnswer, match="listed 2 of 4 entries"):
        ids(script)


def test_entries_that_come_in_during_the_walk_make_no_error() -> None:
    script = Script(
        numbered_page(1, 9, 7, last=2, total=4), numbered_page(2, 7, 5, 3, last=2, total=5)
    )
    assert ids(script) == [9, 7, 5, 3]


def test_a_page_past_the_last_one_that_is_served_is_an_error_and_no_end() -> None:
    script = Script(
        numbered_page(1, 9, last=1001),
        error_answer(422, "The page field must not be greater than 1000."),
    )
    with pytest.raises(RefusedRequest, match="422"):
        ids(script)


def test_an_error_on_a_later_page_gives_no_part_of_the_list() -> None:
    script = Script(numbered_page(1, 9, last=2, total=2), answer({"success": False}))
    with pytest.raises(MalformedAnswer, match="a failure"):
        ids(script)


def test_pages_that_bring_nothing_new_are_an_error_and_not_an_endless_walk() -> None:
    script = Script(*(cursor_page(9, 7, following=f"c{n}") for n in range(20)))
    with pytest.raises(MalformedAnswer, match="a page that it had given before"):
        ids(script)
    assert len(script.requests) == 2


def test_workspaces_are_walked_by_cursor_where_an_instance_knows_nothing_else() -> None:
    script = Script(cursor_page(7, following="abc"), cursor_page(9))
    assert ids(script) == [7, 9]
    assert queries(script) == [{"page": "1"}, {"pagination_type": "cursor", "cursor": "abc"}]


def test_webhooks_are_listed_with_their_events_in_one_case_and_their_urls_hidden() -> None:
    secret = "https://kpi.example/webhooks/bison/unguessable"
    hooks = [
        {"id": n, "name": "KPIs", "url": secret, "events": ["LEAD_INTERESTED", "email_sent"]}
        for n in (1, 2)
    ]
    meta = [{"current_page": n, "last_page": 2, "total": 2} for n in (1, 2)]
    script = Script(*(answer([row], meta=each) for row, each in zip(hooks, meta, strict=True)))

    found = read(script, lambda reader: reader.webhooks())

    assert [hook.id for hook in found] == [1, 2]
    assert found[0].events == {"lead_interested", "email_sent"}
    assert found[0].url.get_secret_value() == secret
    assert "unguessable" not in repr(found)
