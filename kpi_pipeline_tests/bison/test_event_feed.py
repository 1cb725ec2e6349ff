"""The event feed is read by cursor, within bounds, and whatever it ignores is filtered again."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import pytest

from kpi_pipeline.bison import BisonError, MalformedAnswer, WorkspaceReader
from kpi_pipeline.bison.events import FeedPart, read_events
from kpi_pipeline_tests.bison.support import (
    HARBOR,
    WORKSPACE_KEY,
    Handler,
    Script,
    answer,
    client_for,
    error_answer,
)

NOON = datetime(2026, 3, 18, 12, tzinfo=UTC)
SINCE = NOON - timedelta(hours=2)


def row(number: int, minutes_ago: float, event_type: str = "LEAD_INTERESTED") -> dict[str, Any]:
    """A row of the feed, as a live instance has it."""
    at = NOON - timedelta(minutes=minutes_ago)
    return {
        "id": number,
        "uuid": f"uuid-{number}",
        "payload": {"event": {"type": event_type, "workspace_id": 7}, "data": {}},
        "webhook_deliveries": [],
        "created_at": f"{at:%Y-%m-%dT%H:%M:%S.000000Z}",
        "updated_at": "2026-03-18T12:00:00.000000Z",
    }


class Feed:
    """A feed of these rows, 15 a page, by cursor alone and without any filter."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = rows
        self.asked: list[dict[str, str]] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(dict(request.url.params))
        start = int(request.url.params.get("cursor", "0"))
        following = str(start + 15) if len(self.rows) > start + 15 else None
        meta = {"path": "/", "per_page": 15, "next_cursor": following, "prev_cursor": None}
        return answer(self.rows[start : start + 15], meta=meta)


def read(
    handler: Handler, most_rows: int = 600, types: Sequence[str] = ("lead_interested",)
) -> FeedPart:
    async def work(reader: WorkspaceReader) -> FeedPart:
        return await read_events(
            reader.session,
            types,
            date(2026, 3, 17),
            date(2026, 3, 18),
            since=SINCE,
            most_rows=most_rows,
        )

    async def reading() -> FeedPart:
        async with client_for(handler) as client:
            return (await client.read_as(HARBOR, WORKSPACE_KEY, work)).value

    return asyncio.run(reading())


def ids(part: FeedPart) -> list[int]:
    return [json.loads(it.body)["id"] for it in part.events]


def test_every_page_is_read_by_its_cursor_with_the_filters_on_each() -> None:
    feed = Feed([row(n, minutes_ago=n) for n in range(1, 41)])

    part = read(feed)

    assert ids(part) == list(range(1, 41))
    assert (part.complete, part.filtered, part.undated) == (True, True, 0)
    assert part.latest == NOON - timedelta(minutes=1)
    filters = {"type": "lead_interested", "start_date": "2026-03-17", "end_date": "2026-03-18"}
    assert [{name: it[name] for name in filters} for it in feed.asked] == [filters] * 3
    assert [it.get("cursor") for it in feed.asked] == [None, "15", "30"]


def test_rows_of_another_type_or_an_earlier_time_are_left_out_where_filters_are_ignored() -> None:
    feed = Feed(
        [
            row(1, 1),
            row(2, 2, "EMAIL_SENT"),
            row(3, 3, "lead_interested"),
            row(4, 4, "LEAD_REPLIED"),
            row(5, 200),
        ]
    )
    part = read(feed)
    assert ids(part) == [1, 3]
    assert not part.filtered
    assert [(it.event_type, it.recorded_at.minute) for it in part.events] == [
        ("lead_interested", 59),
        ("lead_interested", 57),
    ]


def test_one_walk_serves_several_types_where_filters_are_ignored() -> None:
    feed = Feed([row(1, 1), row(2, 2, "EMAIL_SENT"), row(4, 4, "LEAD_REPLIED")])
    part = read(feed, types=["lead_replied", "lead_interested"])
    assert [it.event_type for it in part.events] == ["lead_interested", "lead_replied"]
    assert len(feed.asked) == 1


def test_a_list_that_begins_with_the_newest_ends_where_old_rows_begin() -> None:
    feed = Feed([row(n, minutes_ago=10 * n) for n in range(1, 1_000)])

    part = read(feed)

    assert ids(part) == list(range(1, 13))
    assert part.complete
    assert len(feed.asked) == 2, "12 rows of the last two hours, and 15 older ones"


def test_a_list_that_begins_with_the_oldest_is_read_to_its_end() -> None:
    feed = Feed([row(n, minutes_ago=10 * (61 - n)) for n in range(1, 61)])

    assert ids(read(feed)) == list(range(49, 61))
    assert len(feed.asked) == 4


def test_a_feed_that_does_not_end_is_read_within_bounds_and_called_incomplete() -> None:
    feed = Feed([row(n, minutes_ago=n / 1000) for n in range(1, 1_000)])

    part = read(feed, most_rows=60)

    assert len(part.events) == 60
    assert not part.complete
    assert len(feed.asked) <= 5


def test_a_row_without_a_valid_time_is_counted_and_left_out() -> None:
    rows = [row(n, n) for n in range(1, 5)]
    for it, time in zip(rows, ["", None, "2026-03-18 11:59:00", "yesterday"], strict=True):
        it["created_at"] = time

    part = read(Feed([*rows, row(9, 9)]))

    assert (ids(part), part.undated) == ([9], 4)


def test_a_body_is_the_same_at_each_reading_whatever_was_delivered_meanwhile() -> None:
    before, after = row(1, 1), row(1, 1)
    after["webhook_deliveries"] = [{"status": 200}]
    after["updated_at"] = "2026-03-18T13:00:00.000000Z"

    first, second = read(Feed([before])), read(Feed([after]))

    assert first.events == second.events
    assert first.events[0].recorded_at == NOON - timedelta(minutes=1)


def test_a_cursor_that_leads_round_in_circles_is_no_list() -> None:
    meta = {"path": "/", "per_page": 15, "next_cursor": "again", "prev_cursor": None}
    pages = Script(*(answer([row(n, n)], meta=meta) for n in range(1, 5)))
    with pytest.raises(MalformedAnswer, match="a cursor that it had given before"):
        read(pages)


def test_an_instance_without_a_feed_is_told_by_the_status_of_the_error() -> None:
    with pytest.raises(BisonError) as caught:
        read(Script(error_answer(404, "Not found.")))
    assert caught.value.status == 404
    assert caught.value.call == "GET /api/events"
