"""Lists come in pages, by number or by cursor, and are read whole or not at all."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
import pytest

from kpi_pipeline.bison import MalformedAnswer, RefusedRequest, Reply, Workspace, WorkspaceReader
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

RECEIVED = "2026-03-04T16:59:21.000000Z"


def reply(number: int, **more: object) -> dict[str, Any]:
    return {
        "id": number,
        "uuid": f"uuid-{number}",
        "interested": True,
        "date_received": RECEIVED,
        "from_email_address": "ines@mill.example",
    } | more


def read(handler: Handler, work: Callable[[WorkspaceReader], Awaitable[T]]) -> T:
    async def reading() -> T:
        async with client_for(handler) as client:
            return (await client.read_as(HARBOR, WORKSPACE_KEY, work)).value

    return run(reading())


def replies(handler: Handler) -> list[Reply]:
    return read(handler, lambda reader: reader.interested_replies())


def workspaces(handler: Handler) -> list[Workspace]:
    async def work() -> list[Workspace]:
        async with client_for(handler) as client:
            return await client.list_workspaces()

    return run(work())


def cursor_page(*numbers: int, following: str | None = None) -> httpx.Response:
    links = {"next": f"https://bison.example/api/replies?cursor={following}"}
    meta = {"path": "/", "per_page": 15, "next_cursor": following, "prev_cursor": None}
    return answer([reply(n) for n in numbers], links=links, meta=meta)


def numbered_page(number: int, *rows: int, last: int, total: int | None = None) -> httpx.Response:
    meta = {"current_page": number, "last_page": last, "per_page": 15, "total": total}
    return answer([reply(n) for n in rows], meta=meta)


def queries(script: Script) -> list[dict[str, str]]:
    return [dict(request.url.params) for request in script.requests]


def test_cursors_are_followed_and_the_filters_go_along_with_every_request() -> None:
    script = Script(
        cursor_page(9, 7, following="abc"), cursor_page(following="xyz"), cursor_page(3)
    )
    assert [each.id for each in replies(script)] == [9, 7, 3]
    filtered = {"status": "interested", "pagination_type": "cursor"}
    assert queries(script) == [
        filtered,
        filtered | {"cursor": "abc"},
        filtered | {"cursor": "xyz"},
    ]


def test_an_instance_that_offers_no_cursors_is_walked_by_number() -> None:
    script = Script(numbered_page(1, 9, 7, last=2, total=3), numbered_page(2, 3, last=2, total=3))
    assert [each.id for each in replies(script)] == [9, 7, 3]
    assert queries(script) == [
        {"status": "interested", "pagination_type": "cursor"},
        {"status": "interested", "page": "2"},
    ]


def test_a_list_without_meta_is_whole() -> None:
    script = Script(answer([reply(9), reply(7)]))
    assert [each.id for each in replies(script)] == [9, 7]


def test_a_change_of_mode_in_mid_walk_starts_again_and_loses_and_doubles_nothing() -> None:
    script = Script(
        numbered_page(1, 9, 7, last=2, total=4),
        cursor_page(9, 7, following="abc"),
        cursor_page(5, 3),
    )
    assert [each.id for each in replies(script)] == [9, 7, 5, 3]

    script = Script(
        cursor_page(9, 7, following="abc"),
        numbered_page(1, 9, 7, last=2, total=4),
        numbered_page(2, 5, 3, last=2, total=4),
    )
    assert [each.id for each in replies(script)] == [9, 7, 5, 3]


def test_an_instance_that_changes_its_mode_again_and_again_is_an_error() -> None:
    script = Script(
        numbered_page(1, 9, last=3, total=3),
        cursor_page(9, following="abc"),
        numbered_page(1, 9, last=3, total=3),
        cursor_page(9, following="xyz"),
    )
    with pytest.raises(MalformedAnswer, match="changed its way of paging again and again"):
        replies(script)


def test_a_cursor_that_comes_twice_is_an_error_and_not_an_endless_loop() -> None:
    script = Script(cursor_page(9, following="abc"), cursor_page(7, following="abc"))
    with pytest.raises(MalformedAnswer, match="a cursor that it had given before"):
        replies(script)
    assert len(script.requests) == 2


def test_after_a_change_of_mode_the_total_that_was_named_first_must_still_be_reached() -> None:
    script = Script(numbered_page(1, 9, last=2, total=4), cursor_page(9, 7))
    with pytest.raises(MalformedAnswer, match="listed 2 of 4 entries"):
        replies(script)


def test_entries_that_come_in_during_the_walk_make_no_error() -> None:
    script = Script(
        numbered_page(1, 9, 7, last=2, total=4), numbered_page(2, 7, 5, 3, last=2, total=5)
    )
    assert [each.id for each in replies(script)] == [9, 7, 5, 3]


def test_a_page_past_the_last_one_that_is_served_is_an_error_and_no_end() -> None:
    script = Script(
        numbered_page(1, 9, last=1001),
        error_answer(422, "The page field must not be greater than 1000."),
    )
    with pytest.raises(RefusedRequest, match="422"):
        replies(script)


def test_an_error_on_a_later_page_gives_no_part_of_the_list() -> None:
    script = Script(numbered_page(1, 9, last=2, total=2), answer({"success": False}))
    with pytest.raises(MalformedAnswer, match="a failure"):
        replies(script)


def test_workspaces_are_walked_by_cursor_where_an_instance_knows_nothing_else() -> None:
    def page(number: int, following: str | None) -> httpx.Response:
        row = {"id": number, "name": f"Client {number}"}
        return answer([row], meta={"next_cursor": following})

    script = Script(page(7, "abc"), page(9, None))
    assert [workspace.id for workspace in workspaces(script)] == [7, 9]
    assert queries(script) == [{"page": "1"}, {"pagination_type": "cursor", "cursor": "abc"}]


def test_a_reply_is_known_by_id_and_time_and_without_what_people_wrote() -> None:
    [found] = replies(Script(answer([reply(9, text_body="Yes, please", uuid=None)])))
    assert found == Reply(9, None, True, datetime(2026, 3, 4, 16, 59, 21, tzinfo=UTC))


@pytest.mark.parametrize("field", ["id", "interested", "date_received"])
def test_a_reply_that_lacks_what_we_read_is_malformed(field: str) -> None:
    row = {name: value for name, value in reply(9).items() if name != field}
    with pytest.raises(MalformedAnswer, match=rf"data\.0\.{field}: Field required"):
        replies(Script(answer([row])))


def test_webhooks_are_listed_with_their_events_in_one_case_and_their_urls_hidden() -> None:
    secret = "https://kpi.example/webhooks/bison/unguessable"
    rows = [
        {"id": n, "name": "KPIs", "url": secret, "events": ["LEAD_INTERESTED", "email_sent"]}
        for n in (1, 2)
    ]
    meta = [{"current_page": n, "last_page": 2, "total": 2} for n in (1, 2)]
    script = Script(*(answer([row], meta=each) for row, each in zip(rows, meta, strict=True)))

    found = read(script, lambda reader: reader.webhooks())

    assert [hook.id for hook in found] == [1, 2]
    assert found[0].events == {"lead_interested", "email_sent"}
    assert found[0].url.get_secret_value() == secret
    assert "unguessable" not in repr(found)
