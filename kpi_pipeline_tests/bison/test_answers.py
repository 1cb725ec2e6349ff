import httpx
import pytest

from kpi_pipeline.bison import MalformedAnswer, PeriodStats, Workspace
from kpi_pipeline_tests.bison.support import (
    DAY,
    HARBOR,
    LIST,
    MASTER_KEY,
    WORKSPACE_KEY,
    Handler,
    LocalLock,
    Script,
    answer,
    client_for,
    run,
)

STATS = {
    "emails_sent": "990",
    "total_leads_contacted": "400",
    "unique_replies_per_contact": "31",
    "unique_replies_per_contact_percentage": "7.75",
    "bounced": "12",
    "unsubscribed": "0",
    "interested": "5",
}


def read_stats(response: httpx.Response) -> PeriodStats:
    async def work() -> PeriodStats:
        async with client_for(Script(response)) as client:
            reading = await client.read_as(
                HARBOR, WORKSPACE_KEY, lambda reader: reader.stats(DAY, DAY)
            )
            return reading.value

    return run(work())


def list_workspaces(handler: Handler, lock: LocalLock | None = None) -> list[Workspace]:
    async def work() -> list[Workspace]:
        async with client_for(handler, lock=lock) as client:
            return await client.list_workspaces()

    return run(work())


def page(
    number: int, rows: list[tuple[int, str]], last: int = 1, total: int | None = None
) -> httpx.Response:
    meta = {"current_page": number, "last_page": last, "per_page": 15, "total": total}
    return answer([{"id": id, "name": name, "main": False} for id, name in rows], meta=meta)


def test_stats_may_be_strings_or_integers() -> None:
    expected = PeriodStats(emails_sent=990, interested=5, bounced=12, unsubscribed=0, replied=31)
    integers = {name: int(float(value)) for name, value in STATS.items()}
    assert read_stats(answer(STATS)) == expected
    assert read_stats(answer(integers)) == expected


@pytest.mark.parametrize("field", ["emails_sent", "unique_replies_per_contact", "interested"])
@pytest.mark.parametrize("value", [None, "", "many", -1, 1.5, True])
def test_a_stat_that_is_no_count_is_malformed(field: str, value: object) -> None:
    with pytest.raises(MalformedAnswer, match=rf"data\.{field}: it is no count"):
        read_stats(answer(STATS | {field: value}))


def test_a_missing_stat_is_malformed_and_not_a_zero() -> None:
    rest = {name: value for name, value in STATS.items() if name != "bounced"}
    with pytest.raises(MalformedAnswer, match=r"data\.bounced: Field required"):
        read_stats(answer(rest))


def test_a_failure_among_valid_stats_is_still_a_failure() -> None:
    with pytest.raises(MalformedAnswer, match="a failure: Stale"):
        read_stats(answer(STATS | {"success": False, "message": "Stale"}))


def test_the_list_follows_meta_and_not_the_length_of_a_page() -> None:
    script = Script(
        page(1, [(7, "Blue Harbor")], last=3, total=3),
        page(2, [], last=3, total=3),
        page(3, [(9, "Old Orchard"), (12, "Café Ünic")], last=3, total=3),
    )
    assert [workspace.id for workspace in list_workspaces(script)] == [7, 9, 12]
    assert [request.url.params["page"] for request in script.requests] == ["1", "2", "3"]
    assert {request.url.path for request in script.requests} == {LIST}


@pytest.mark.parametrize("without", [{}, {"meta": None}, {"meta": []}])
def test_a_list_without_meta_is_the_whole_list(without: dict[str, object]) -> None:
    rows = [{"id": 7, "name": "A"}, {"id": "9", "name": "B"}]
    script = Script(httpx.Response(200, json={"data": rows} | without))
    assert list_workspaces(script) == [Workspace(7, "A"), Workspace(9, "B")]
    assert len(script.requests) == 1


def test_names_are_trimmed_and_freed_of_control_characters() -> None:
    script = Script(answer([{"id": 7, "name": " Blue\x00 Harbor \n"}]))
    assert list_workspaces(script) == [Workspace(7, "Blue  Harbor")]


def test_a_workspace_on_two_pages_is_listed_once() -> None:
    script = Script(
        page(1, [(7, "A"), (9, "B")], last=2, total=3), page(2, [(9, "B"), (12, "C")], last=2)
    )
    assert [workspace.id for workspace in list_workspaces(script)] == [7, 9, 12]


def test_a_list_that_is_shorter_than_its_total_is_an_error() -> None:
    with pytest.raises(MalformedAnswer, match="listed 1 of 26 entries"):
        list_workspaces(Script(page(1, [(7, "A")], total=26)))


def test_an_instance_that_ignores_the_page_number_is_an_error_and_not_an_endless_loop() -> None:
    with pytest.raises(MalformedAnswer, match="answered with page 1, not 2"):
        list_workspaces(Script(page(1, [(7, "A")], last=2)))


@pytest.mark.parametrize(
    "response",
    [
        answer({"id": 7, "name": "A"}),
        answer([{"id": 7}]),
        answer([{"id": True, "name": "A"}]),
        answer([{"id": 7, "name": "A"}], meta={"next_cursor": 3}),
        answer([{"id": 7, "name": "A"}], meta={"path": "/"}),
        answer([{"id": 7, "name": "A"}], meta={"current_page": 1, "last_page": None}),
    ],
)
def test_a_malformed_list_is_an_error(response: httpx.Response) -> None:
    with pytest.raises(MalformedAnswer, match="another shape"):
        list_workspaces(Script(response))


def test_the_list_is_read_with_the_master_key_under_its_lock() -> None:
    lock, script = LocalLock(), Script(answer([]))
    list_workspaces(script, lock)
    assert lock.holders == ["main"]
    bearer = f"Bearer {MASTER_KEY.get_secret_value()}"
    assert [request.headers["Authorization"] for request in script.requests] == [bearer]
