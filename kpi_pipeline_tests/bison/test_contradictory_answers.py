"""An answer that says two things, or says itself that it is not whole, is an error."""

import pytest

from kpi_pipeline_tests.bison.answers import (
    MOST_PAGES,
    PERIOD,
    TOTALS,
    Wire,
    encoded,
    page,
    plan,
    read_list,
    read_plan,
    read_series,
    read_stats,
    read_team,
    series,
    stats,
)
from kpi_pipeline_tests.bison.support import DAY, LABELS

# They tell of an answer that is not ready, changed on its way, a part, or one of several.
NOT_THE_WHOLE = [202, 203, 206, 207, 226]


def test_a_field_that_comes_twice_is_an_error_and_not_its_last_value() -> None:
    twice = encoded(stats(TOTALS).body).replace(b'"bounced": 12', b'"bounced": 12, "bounced": 0')
    assert twice.count(b'"bounced"') == 2
    assert read_stats(Wire(twice)) is None
    assert read_plan(Wire(b'{"data": [{"emails_being_sent": 40}], "data": []}')) is None
    assert read_team(Wire(b'{"data": {"team": {"id": 7}, "team": {"id": 8}}}')) is None


def test_a_field_with_the_name_that_we_use_is_not_taken_for_the_vendors() -> None:
    answer = stats(TOTALS).body
    assert read_stats(Wire(encoded({"data": answer["data"] | {"replied": 8}}))) == TOTALS


@pytest.mark.parametrize("number", [2**63, 10**30, str(10**30)])
def test_a_count_beyond_all_measure_is_an_error(number: int | str) -> None:
    assert read_plan(Wire(encoded({"data": [{"emails_being_sent": number}]}))) is None
    assert read_stats(Wire(encoded(stats(TOTALS, lambda _: number).body))) is None
    assert read_team(Wire(encoded({"data": {"team": {"id": number}}}))) is None


@pytest.mark.parametrize("status", NOT_THE_WHOLE)
def test_half_a_plan_under_a_status_that_promises_no_whole_is_an_error(status: int) -> None:
    half = plan([40, 2]).body["data"][:1]
    assert read_plan(Wire(encoded({"data": half}), status)) is None


@pytest.mark.parametrize("status", NOT_THE_WHOLE)
def test_half_a_series_under_a_status_that_promises_no_whole_is_no_days_of_zeros(
    status: int,
) -> None:
    half = series({label: {DAY: 11, PERIOD[1]: 12} for label in LABELS})
    assert read_series(Wire(encoded(half.body), status)) is None


def test_a_campaign_that_comes_twice_in_a_plan_is_an_error_and_not_counted_twice() -> None:
    first, second = plan([40, 2]).body["data"]
    assert read_plan(Wire(encoded({"data": [first, second, first]}))) is None


@pytest.mark.parametrize("members", [{}, {"meta": None}, {"meta": []}])
def test_a_page_without_meta_that_links_to_a_next_one_is_not_a_whole_list(
    members: dict[str, object],
) -> None:
    first = page(1)
    del first["meta"]
    assert read_list(lambda number: Wire(encoded(first | members))) is None


def test_a_list_of_more_pages_than_entries_is_an_error_and_no_endless_walk() -> None:
    numbers = []

    def endless(number: int) -> Wire:
        numbers.append(number)
        body = page(number)
        return Wire(encoded(body | {"meta": body["meta"] | {"last_page": 10**6}}))

    assert read_list(endless) is None
    assert len(numbers) < MOST_PAGES
