"""The month picker: which day a page shows, and where its links lead."""

from datetime import date

import pytest
from starlette.requests import Request

from kpi_pipeline.dashboard.look_back import LookBack, look_back

TODAY = date(2026, 3, 18)


def at(day: date, **more: tuple[tuple[str, str], ...]) -> LookBack:
    return LookBack("/x", day, TODAY, **more)


@pytest.mark.parametrize(
    ("day", "query", "shows_month"),
    [
        (TODAY, "", True),
        (date(2026, 3, 17), "?date=2026-03-17", False),
        (date(2026, 2, 28), "?month=2026-02", True),
        (date(2024, 2, 28), "?date=2024-02-28", False),
        (date(2024, 2, 29), "?month=2024-02", True),
    ],
)
def test_an_address_is_as_short_as_its_day_allows(day: date, query: str, shows_month: bool) -> None:
    assert (at(day).query, at(day).shows_month) == (query, shows_month)


def test_the_months_before_and_after_cross_the_year() -> None:
    december = at(date(2025, 12, 31))
    assert (december.before, december.after) == ("/x?month=2025-11", "/x?month=2026-01")
    assert at(date(2026, 2, 3)).after == "/x", "the current month is shown to date"
    assert at(TODAY).after is None
    assert at(date(2000, 3, 1)).before is None


def test_the_year_has_links_to_its_months_but_none_to_the_future() -> None:
    months = at(TODAY).months
    assert [it.url for it in months[:3]] == ["/x?month=2026-01", "/x?month=2026-02", "/x"]
    assert [it.url for it in months[3:]] == [None] * 9
    assert [it.first.month for it in months if it.shown] == [3]
    assert at(TODAY).year_url(2025) == "/x?month=2025-12"
    assert at(date(2025, 12, 31)).year_url(2026) == "/x"
    assert at(TODAY).year_url(2027) is None


def test_other_parameters_stay_in_every_link() -> None:
    look = at(TODAY, kept=(("c", "a"), ("c", "b & c")))
    assert look.before == "/x?c=a&c=b+%26+c&month=2026-02"
    assert look.url(TODAY) == "/x?c=a&c=b+%26+c"


def test_open_pages_of_different_versions_show_the_same() -> None:
    scope = {"type": "http", "headers": []}
    one, other = (
        look_back(Request({**scope, "query_string": query}), "/x", TODAY)
        for query in (b"since=a-1&c=d", b"since=a-2&c=d")
    )
    assert one == other
    assert one.url(TODAY) == "/x?c=d"
