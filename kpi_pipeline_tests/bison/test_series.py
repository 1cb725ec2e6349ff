import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import httpx
import pytest

from kpi_pipeline.bison import (
    ClientOptions,
    DailySeries,
    DayCounts,
    MalformedAnswer,
    Pacing,
    Unavailable,
)
from kpi_pipeline_tests.bison.support import (
    DAY,
    HARBOR,
    NOON,
    SERIES,
    WORKSPACE_KEY,
    Handler,
    Script,
    answer,
    client_for,
    error_answer,
    run,
    series,
    series_for,
)

LAST = DAY + timedelta(days=2)
AS_BUILT = DayCounts(
    sent=12,
    replied=10,
    interested=15,
    bounced=14,
    unsubscribed=13,
    total_opens=11,
    unique_opens=16,
)
Lines = list[dict[str, Any]]


def read_series(
    handler: Handler,
    first: date = DAY,
    last: date = LAST,
    options: ClientOptions | None = None,
    pacing: Pacing | None = None,
    now: Callable[[], datetime] = lambda: NOON,
) -> DailySeries:
    async def work() -> DailySeries:
        async with client_for(handler, options=options, pacing=pacing, now=now) as client:
            reading = await client.read_as(
                HARBOR, WORKSPACE_KEY, lambda reader: reader.daily_series(first, last)
            )
            return reading.value

    return run(work())


def with_unknown_fields(handler: Handler) -> tuple[DailySeries, Mapping[tuple[str, str], int]]:
    """The series from DAY to LAST, and which fields of it nobody knows."""

    async def work() -> tuple[DailySeries, Mapping[tuple[str, str], int]]:
        async with client_for(handler) as client:
            reading = await client.read_as(
                HARBOR, WORKSPACE_KEY, lambda reader: reader.daily_series(DAY, LAST)
            )
            return reading.value, dict(client.unknown_fields)

    return run(work())


def test_each_day_of_the_period_has_the_seven_counts_of_its_labels() -> None:
    found = read_series(Script(answer(series(DAY, LAST))))
    assert found.days == {DAY + timedelta(days=n): AS_BUILT for n in range(3)}


def test_the_period_is_asked_for_with_both_ends_and_json_is_accepted() -> None:
    script = Script(answer(series(DAY, LAST)))
    read_series(script)
    [request] = script.requests
    assert dict(request.url.params) == {"start_date": "2026-03-04", "end_date": "2026-03-06"}
    assert request.headers["Accept"] == "application/json"


def test_labels_are_matched_by_name_and_not_by_position() -> None:
    assert read_series(Script(answer(series(DAY, LAST)[::-1]))).days[DAY] == AS_BUILT


def test_counts_may_come_as_numeric_strings() -> None:
    lines = series(DAY, LAST)
    for line in lines:
        line["dates"] = [[day, str(number)] for day, number in line["dates"]]
    assert read_series(Script(answer(lines))).days[DAY] == AS_BUILT


def test_an_unknown_label_is_ignored_whatever_it_holds() -> None:
    lines = [*series(DAY, LAST), {"label": "Open Rate", "dates": [["2026-03-04", 12.5]]}]
    assert read_series(Script(answer(lines))).days[DAY] == AS_BUILT


def test_a_day_that_no_label_lists_is_a_zero() -> None:
    found = read_series(Script(answer(series(DAY, DAY))))
    assert found.days[DAY] == AS_BUILT
    assert found.days[LAST] == DayCounts(0, 0, 0, 0, 0, 0, 0)


def without_opens(*labels: str) -> Lines:
    return [line for line in series(DAY, LAST) if line["label"] not in labels]


def test_lines_of_opens_feed_no_number_and_may_be_missing() -> None:
    found = read_series(Script(answer(without_opens("Total Opens", "Unique Opens"))))
    assert set(found.days.values()) == {replace(AS_BUILT, total_opens=None, unique_opens=None)}
    found = read_series(Script(answer(without_opens("Unique Opens"))))
    assert set(found.days.values()) == {replace(AS_BUILT, unique_opens=None)}


def test_a_line_of_opens_may_leave_out_days_or_all_of_them() -> None:
    lines = series(DAY, LAST)
    lines[1]["dates"].pop(0)
    lines[6]["dates"] = []
    found = read_series(Script(answer(lines)))
    assert found.days[DAY] == replace(AS_BUILT, total_opens=None, unique_opens=None)
    assert found.days[LAST] == replace(AS_BUILT, unique_opens=None)


@pytest.mark.parametrize("dates", [None, {}, [["2026-03-04", None]], [["2026-03-04", "9.5"]]])
def test_a_line_of_opens_that_cannot_be_read_is_left_out_and_reported(dates: object) -> None:
    lines = series(DAY, LAST)
    lines[1]["dates"] = dates
    found, fields = with_unknown_fields(Script(answer(lines)))
    assert set(found.days.values()) == {replace(AS_BUILT, total_opens=None)}
    assert fields == {(f"GET {SERIES}", "data[].dates of 'Total Opens' in another shape"): 1}


def test_a_day_that_lines_of_opens_alone_list_is_an_error() -> None:
    lines = series(DAY, LAST)
    for line in lines:
        if "Opens" not in line["label"]:
            line["dates"].pop()
    with pytest.raises(MalformedAnswer, match="2026-03-06 under some of the labels only"):
        read_series(Script(answer(lines)))


def test_the_day_before_the_period_is_left_out_and_reported() -> None:
    found, fields = with_unknown_fields(Script(answer(series(DAY - timedelta(days=1), LAST))))
    assert found.days == {DAY + timedelta(days=n): AS_BUILT for n in range(3)}
    assert fields == {(f"GET {SERIES}", "data[].dates of the day before start_date"): 1}


def test_days_that_are_shifted_by_one_are_an_error_and_no_zero_on_the_last() -> None:
    shifted = series(DAY - timedelta(days=1), LAST - timedelta(days=1))
    with pytest.raises(MalformedAnswer, match="2026-03-03 under 'Replied', outside"):
        read_series(Script(answer(shifted)))


@pytest.mark.parametrize("days", [2, 30])
def test_more_days_before_the_period_are_an_error(days: int) -> None:
    with pytest.raises(MalformedAnswer, match="under 'Replied', outside"):
        read_series(Script(answer(series(DAY - timedelta(days=days), LAST))))


def test_raw_control_characters_in_text_do_not_break_the_answer() -> None:
    body = json.dumps({"data": series(DAY, LAST), "note": "a~b"}).replace("~", "\x07\n\x00")
    assert read_series(Script(httpx.Response(200, content=body))).days[DAY] == AS_BUILT


def test_a_long_period_takes_one_call_for_each_chunk_and_misses_no_day() -> None:
    requests = []

    async def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return series_for(request, sent=len(requests))

    last = DAY + timedelta(days=24)
    found = read_series(handler, DAY, last, ClientOptions(series_max_days=10))
    periods = [(r.url.params["start_date"], r.url.params["end_date"]) for r in requests]
    assert periods == [
        ("2026-03-04", "2026-03-13"),
        ("2026-03-14", "2026-03-23"),
        ("2026-03-24", "2026-03-28"),
    ]
    assert [found.days[DAY + timedelta(days=n)].sent for n in range(25)] == (
        [1] * 10 + [2] * 10 + [3] * 5
    )


class SlowTurns:
    """A rate limiter whose every slot takes an hour, on a clock that nothing else moves."""

    def __init__(self) -> None:
        self.now = NOON

    @asynccontextmanager
    async def slot(self, *, ahead: bool = False) -> AsyncIterator[None]:
        self.now += timedelta(hours=1)
        yield

    async def push_back(self, seconds: float) -> None:
        raise AssertionError("nothing answered 429")


def test_as_of_is_the_moment_after_the_slot_is_taken_and_before_the_first_request() -> None:
    pacing = SlowTurns()

    async def handler(request: httpx.Request) -> httpx.Response:
        pacing.now += timedelta(minutes=1)
        return series_for(request)

    options = ClientOptions(series_max_days=1)
    found = read_series(handler, options=options, pacing=pacing, now=lambda: pacing.now)
    assert found.as_of == NOON + timedelta(hours=1)


def test_as_of_belongs_to_the_try_that_was_answered() -> None:
    pacing = SlowTurns()
    script = Script(error_answer(503, "Down"), answer(series(DAY, LAST)))
    found = read_series(script, pacing=pacing, now=lambda: pacing.now)
    assert found.as_of == NOON + timedelta(hours=2)


def test_a_failing_second_chunk_gives_no_numbers_at_all() -> None:
    script = Script(answer(series(DAY, DAY)), httpx.Response(502, html="<h1>Bad gateway</h1>"))
    with pytest.raises(Unavailable):
        read_series(script, options=ClientOptions(series_max_days=1, attempts=2))


def test_a_period_that_ends_before_it_starts_is_not_asked_for() -> None:
    script = Script(answer([]))
    with pytest.raises(ValueError, match="ends before it starts"):
        read_series(script, LAST, DAY)
    assert script.requests == []


def spoiled(spoil: Callable[[Lines], object]) -> httpx.Response:
    lines = series(DAY, LAST)
    spoil(lines)
    return answer(lines)


def with_count(value: object) -> httpx.Response:
    return spoiled(lambda lines: lines[2]["dates"][0].__setitem__(1, value))


def with_day(value: object) -> httpx.Response:
    """The same odd day under all seven labels, so that it's not refused for being uneven."""
    return spoiled(lambda lines: [line["dates"][0].__setitem__(0, value) for line in lines])


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (spoiled(lambda lines: lines.pop(2)), "without 'Sent'"),
        (answer([]), "without 'Bounced', 'Interested'"),
        (spoiled(lambda lines: lines.append(lines[2])), "'Sent' twice"),
        (spoiled(lambda lines: lines[2].update(label="sent")), "without 'Sent'"),
        (spoiled(lambda lines: lines[2].update(label=None)), "data.2.label"),
        (spoiled(lambda lines: lines[2].pop("label")), "data.2.label"),
        (spoiled(lambda lines: lines[2].pop("dates")), "data.2.dates"),
        (spoiled(lambda lines: lines[2].update(dates={"2026-03-04": 1})), "data.2.dates"),
        (spoiled(lambda lines: lines[2]["dates"].pop()), "2026-03-06 under some"),
        (spoiled(lambda lines: lines[2].update(dates=[])), "2026-03-04 under some"),
        (
            spoiled(lambda lines: lines[2]["dates"].append(["2026-03-04", 12])),
            "a day repeated under 'Sent'",
        ),
        (with_day("2026-03-03"), "2026-03-03 under 'Replied', outside"),
        (with_day("2026-03-07"), "2026-03-07 under 'Replied', outside"),
        (with_day("20260304"), "YYYY-MM-DD"),
        (with_day("2026-W10-3"), "YYYY-MM-DD"),
        (with_day("2026-02-30"), "data.0.dates.0.0"),
        (with_day(1772582400), "YYYY-MM-DD"),
        (with_count(-1), "data.2.dates.0.1: it is no count"),
        (with_count("-1"), "it is no count"),
        (with_count(12.0), "it is no count"),
        (with_count("12.0"), "it is no count"),
        (with_count("1,200"), "it is no count"),
        (with_count("١٢"), "it is no count"),
        (with_count(""), "it is no count"),
        (with_count(None), "it is no count"),
        (with_count(True), "it is no count"),
        (with_count([12]), "it is no count"),
        (spoiled(lambda lines: lines[2]["dates"][0].append(1)), "data.2.dates.0"),
        (spoiled(lambda lines: lines[2]["dates"][0].pop()), "data.2.dates.0"),
        (httpx.Response(200, json=series(DAY, LAST)), "another shape"),
        (answer({"data": series(DAY, LAST)}), "another shape"),
        (answer(None), "another shape"),
        (answer({"success": False, "message": "Try later"}), "a failure: Try later"),
        (answer({"success": "false", "message": "Try later"}), "a failure: Try later"),
        (answer({"success": "False"}), "a failure: it gives no reason"),
        (answer(series(DAY, LAST), success=False, message="Off"), "a failure: Off"),
        (httpx.Response(200), "an empty body"),
        (httpx.Response(200, content=b" \n"), "an empty body"),
        (httpx.Response(204), "an empty body"),
        (httpx.Response(200, html="<html>Sign in</html>"), "other than JSON"),
        (httpx.Response(200, content=b'{"data": ['), "other than JSON"),
        (httpx.Response(200, content=b"\xff\xfe\xfa"), "other than JSON"),
        (httpx.Response(200, content=b"[" * 100_000), "other than JSON"),
        (httpx.Response(200, content=b"null"), "other than JSON"),
    ],
)
def test_a_malformed_series_is_an_error_and_never_a_number(
    response: httpx.Response, reason: str
) -> None:
    script = Script(response)
    with pytest.raises(MalformedAnswer) as caught:
        read_series(script)
    assert reason in str(caught.value)
    assert "Sign in" not in str(caught.value)
    assert len(script.requests) == 1


def test_a_body_that_cannot_be_decompressed_is_malformed() -> None:
    class Gibberish(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            yield b"not gzip at all"

    async def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=Gibberish())

    with pytest.raises(MalformedAnswer, match="decompressed"):
        read_series(handler)
