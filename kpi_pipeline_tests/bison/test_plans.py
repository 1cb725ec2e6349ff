"""A sending plan is the sum over all of its pages, a zero, or an error; never a part of it."""

from collections.abc import Callable
from typing import Any, Literal

import httpx
import pytest

from kpi_pipeline.bison import (
    BisonError,
    ClientOptions,
    KeyUse,
    MalformedAnswer,
    Reading,
    RefusedRequest,
    WorkspaceReader,
)
from kpi_pipeline_tests.bison.answers import Wire, encoded, read_pages_of_plan
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

NOTHING = "No emails scheduled for this period"
Change = Callable[[dict[str, Any]], object]


def read_plan(handler: Handler, day: Literal["today", "tomorrow"] = "today") -> Reading[int]:
    async def read(reader: WorkspaceReader) -> int:
        return await reader.sending_plan(day)

    async def work() -> Reading[int]:
        async with client_for(handler, options=ClientOptions(attempts=2)) as client:
            return await client.read_as(HARBOR, WORKSPACE_KEY, read)

    return run(work())


def page(number: int, campaigns: int = 20) -> dict[str, Any]:
    """A page of a plan of 100 emails for each campaign, 15 campaigns a page, as observed live."""
    last = -(-campaigns // 15)
    numbers = range(15 * number - 14, min(15 * number, campaigns) + 1)
    address = "https://bison.example/api/campaigns/sending-schedules"
    pages = {"first": 1, "last": last, "prev": number - 1, "next": (number + 1) % (last + 1)}
    return {
        "data": [
            {"emails_being_sent": 100, "campaign_id": n, "campaign": {"id": n, "name": "Fall"}}
            for n in numbers
        ],
        "links": {name: f"{address}?page={n}" if n else None for name, n in pages.items()},
        "meta": {
            "current_page": number,
            "from": numbers[0],
            "last_page": last,
            "path": address,
            "per_page": 15,
            "to": numbers[-1],
            "total": campaigns,
        },
    }


def pages_with(changed: int, change: Change) -> Callable[[int], Wire]:
    """The two pages of a plan, one of them changed."""

    def wire(number: int) -> Wire:
        body = page(number)
        if number == changed:
            change(body)
        return Wire(encoded(body))

    return wire


def test_a_sending_plan_is_the_sum_over_the_campaigns() -> None:
    script = Script(
        answer([{"emails_being_sent": 40, "campaign_id": 1}, {"emails_being_sent": "2"}])
    )
    assert read_plan(script, "tomorrow") == Reading(value=42, key_used=KeyUse.WORKSPACE, calls=1)
    assert script.requests[0].url.params["day"] == "tomorrow"


@pytest.mark.parametrize(("campaigns", "calls"), [(15, 1), (16, 2), (20, 2), (61, 5)])
def test_a_plan_is_walked_over_all_its_pages(campaigns: int, calls: int) -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.params["day"] == "today"
        return httpx.Response(200, json=page(int(request.url.params["page"]), campaigns))

    reading = read_plan(handler)
    assert (reading.value, reading.calls) == (100 * campaigns, calls)


def test_a_first_page_that_comes_again_and_again_is_not_taken_for_the_whole() -> None:
    with pytest.raises(MalformedAnswer, match="answered with page 1, not 2"):
        read_plan(Script(httpx.Response(200, json=page(1))))


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (error_answer(400, NOTHING), "answered 400"),
        (error_answer(404, NOTHING), "answered 404"),
        (error_answer(422, "The page is invalid."), "answered 422"),
        (error_answer(200, NOTHING), "answered with a failure"),
        (error_answer(401, "Unauthenticated."), "answered 401"),
        (error_answer(429, "Too Many Attempts."), "answered 429"),
        (httpx.Response(502, html="<h1>Bad gateway</h1>"), "answered 502"),
        (httpx.Response(200, html="<h1>Hello</h1>"), "other than JSON"),
        (httpx.Response(200, json={"data": []}), "listed 15 of 20 entries"),
        (httpx.ReadTimeout("slow"), "time-out"),
    ],
)
def test_a_plan_whose_second_page_fails_is_an_error_and_neither_a_part_nor_a_zero(
    second: httpx.Response | Exception, reason: str
) -> None:
    with pytest.raises(BisonError, match=reason):
        read_plan(Script(httpx.Response(200, json=page(1)), second))


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body["data"].pop(),
        lambda body: body["data"].clear(),
        lambda body: body["data"].append(body["data"][0]),
        lambda body: body["data"][0].update(emails_being_sent=None),
        lambda body: body["data"][0].pop("campaign_id"),
        lambda body: body["meta"].update(current_page=3),
        lambda body: body["meta"].update(last_page=None),
        lambda body: body.pop("data"),
    ],
)
@pytest.mark.parametrize("changed", [1, 2])
def test_pages_of_a_plan_that_make_no_whole_are_an_error(changed: int, change: Change) -> None:
    assert read_pages_of_plan(pages_with(0, change)) == 2000
    assert read_pages_of_plan(pages_with(changed, change)) is None


def test_a_campaign_that_moves_to_the_next_page_meanwhile_is_counted_once() -> None:
    def move(body: dict[str, Any]) -> None:
        body["data"].insert(0, page(1)["data"][-1])
        body["meta"]["total"] = 21

    assert read_pages_of_plan(pages_with(2, move)) == 2000


def test_pages_without_a_total_that_repeat_themselves_are_an_error() -> None:
    def repeated(number: int) -> Wire:
        body = page(1)
        body["meta"] |= {"current_page": number, "total": None}
        return Wire(encoded(body))

    assert read_pages_of_plan(repeated) is None


@pytest.mark.parametrize(
    "response",
    [
        answer([]),
        answer([], meta={"current_page": 1, "last_page": 1, "total": 0}),
        *(error_answer(status, NOTHING) for status in (200, 400, 404, 422)),
        *(httpx.Response(status, json={"message": f"{NOTHING}."}) for status in (400, 404, 422)),
        httpx.Response(200, json={"success": "false", "message": NOTHING.upper()}),
    ],
)
def test_nothing_planned_is_zero_in_each_of_its_forms(response: httpx.Response) -> None:
    assert read_plan(Script(response)).value == 0


@pytest.mark.parametrize("status", [200, 400, 404, 422])
def test_other_words_of_the_same_status_are_an_error_and_not_a_zero(status: int) -> None:
    with pytest.raises(BisonError, match="The day is invalid"):
        read_plan(Script(error_answer(status, "The day is invalid")))


@pytest.mark.parametrize("status", [302, 401, 403, 409, 429, 500, 503])
def test_the_words_of_an_empty_plan_under_another_status_are_an_error(status: int) -> None:
    with pytest.raises(BisonError, match=f"answered {status}"):
        read_plan(Script(error_answer(status, NOTHING)))


def test_the_words_of_an_empty_plan_in_an_answer_of_another_shape_are_an_error() -> None:
    with pytest.raises(MalformedAnswer, match="another shape"):
        read_plan(Script(httpx.Response(200, json={"data": None, "message": NOTHING})))


@pytest.mark.parametrize("data", [None, {}, [{}], [{"emails_being_sent": None}], [[]], ["5"]])
def test_a_malformed_plan_is_an_error_and_not_a_zero(data: object) -> None:
    with pytest.raises(MalformedAnswer, match="another shape"):
        read_plan(Script(answer(data)))


def test_a_sum_beyond_all_measure_is_an_error() -> None:
    rows = [{"emails_being_sent": 2**31 - 1, "campaign_id": n} for n in (1, 2)]
    with pytest.raises(MalformedAnswer, match="beyond all measure"):
        read_plan(Script(answer(rows)))


def test_a_rejected_plan_names_its_status_and_message() -> None:
    with pytest.raises(RefusedRequest) as caught:
        read_plan(Script(error_answer(400, "The campaign is locked.")))
    assert (caught.value.status, caught.value.message) == (400, "The campaign is locked.")
