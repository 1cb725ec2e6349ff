"""The numbers on the page of one client, and what it says where there are none."""

import re
from datetime import date
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, delete, insert, select, update

from kpi_pipeline.dashboard.client_view import COLUMNS
from kpi_pipeline.db.dashboard.client import NUMBERS
from kpi_pipeline.db.tables import (
    client_metrics,
    raw_bison_stats,
)
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.domain.columns import PERCENTAGES
from kpi_pipeline_tests.dashboard.client_pages import (
    facts,
    table_cells,
    text_of,
    tiles,
)
from kpi_pipeline_tests.dashboard.rows import (
    ONE_DAY,
    TODAY,
    put_clients,
    put_rows,
    put_target,
)

PAGE = "/clients/harbor"
NEVER_FETCHED = date(2026, 3, 4)
DAYS = [day for day in days_between(date(2025, 12, 1), TODAY) if day != NEVER_FETCHED]


@pytest.fixture(autouse=True)
def _rows(engine: Engine) -> None:
    put_clients(engine, "harbor", "quay")
    put_rows(engine, "harbor", DAYS, facts=True)
    with engine.begin() as connection:
        connection.execute(delete(raw_bison_stats).where(raw_bison_stats.c.date == NEVER_FETCHED))


def stored(engine: Engine, first: date, last: date) -> dict[date, dict[str, Any]]:
    with engine.connect() as connection:
        rows = connection.execute(
            select(client_metrics).where(
                client_metrics.c.workspace == "harbor",
                client_metrics.c.metric_date.between(first, last),
            )
        ).mappings()
        return {row["metric_date"]: dict(row) for row in rows}


def written(value: Any, column: str, places: int) -> str:
    if value is None:
        return "–"
    text = f"{value:,.{places}f} %" if column in PERCENTAGES else f"{value:,}"
    return text.replace("-", "−")


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ("", date(2026, 3, 1), TODAY),
        ("?month=2026-02", date(2026, 2, 1), date(2026, 2, 28)),
        ("?month=2025-12", date(2025, 12, 1), date(2025, 12, 31)),
        ("?date=2026-01-01", date(2026, 1, 1), date(2026, 1, 1)),
        ("?date=2026-03-08", date(2026, 3, 1), date(2026, 3, 8)),
    ],
    ids=["today", "a past month", "the last month of a year", "new year", "the day clocks changed"],
)
def test_every_number_of_the_clients_page_equals_its_row(
    browse: httpx.Client, engine: Engine, query: str, first: date, last: date
) -> None:
    page = browse.get(f"{PAGE}{query}").text
    rows = stored(engine, first, last)
    shown = table_cells(page)
    assert sorted(shown) == days_between(first, last)
    assert set(COLUMNS) == set(NUMBERS), "the table has a column for each number"
    for day, cells in shown.items():
        row = rows.get(day, {})
        assert cells == {name: written(row.get(name), name, 2) for name in COLUMNS}, day
    for name, text in tiles(page).items():
        expected = written(rows[last][name], name, 0)
        assert text.lstrip("+") == expected, name


def test_a_leap_year_has_a_29th_of_february(browse: httpx.Client, engine: Engine) -> None:
    put_rows(engine, "harbor", days_between(date(2024, 2, 1), date(2024, 2, 29)))
    shown = table_cells(browse.get(f"{PAGE}?month=2024-02").text)
    assert max(shown) == date(2024, 2, 29)
    row = stored(engine, date(2024, 2, 29), date(2024, 2, 29))[date(2024, 2, 29)]
    assert shown[date(2024, 2, 29)]["emails_sent_mtd"] == f"{row['emails_sent_mtd']:,}"
    assert browse.get(f"{PAGE}?date=2026-02-29").status_code == 400


def test_a_day_that_was_never_fetched_is_a_gap_with_its_reason_and_no_zero(
    browse: httpx.Client,
) -> None:
    page = browse.get(PAGE).text
    assert set(table_cells(page)[NEVER_FETCHED].values()) == {"–"}
    row = re.search(f'<tr id="day-{NEVER_FETCHED}".*?</tr>', page, re.S)
    assert row is not None
    assert 'title="This day was never fetched"' in row[0]
    assert "<title>Wed 4 Mar 2026: never fetched</title>" in page
    assert page.count('<rect class="gap"') == 4, "one gap in each of two charts, in both widths"
    assert "Never fetched: 4 Mar 2026" in text_of(page)
    assert "/clients/harbor/fill?from=2026-03-04&amp;to=2026-03-04" in page
    # The month's line has the days before the gap, and those after it.
    lines = page.split('<div class="chart narrow">')[0]
    assert lines.count('<polyline class="line"') == 2


def test_days_before_the_first_row_are_no_gap_to_fill(browse: httpx.Client, engine: Engine) -> None:
    put_rows(engine, "quay", [TODAY - ONE_DAY, TODAY], facts=False)
    with engine.begin() as connection:
        connection.execute(
            insert(raw_bison_stats),
            [facts("quay", TODAY - ONE_DAY), facts("quay", TODAY)],
        )
    page = browse.get("/clients/quay").text
    assert "no numbers before 17 Mar 2026" in page
    assert "Never fetched" not in page


def test_a_row_of_events_alone_is_said_to_be_one(browse: httpx.Client, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(delete(raw_bison_stats).where(raw_bison_stats.c.date == TODAY))
    page = browse.get(PAGE).text
    assert "Wed 18 events only, not fetched" in text_of(page)
    assert table_cells(page)[TODAY]["positive_replies_today"] != "–"


def test_a_number_that_is_none_is_marked_where_it_stands(
    browse: httpx.Client, engine: Engine
) -> None:
    with engine.begin() as connection:
        connection.execute(
            update(client_metrics)
            .where(client_metrics.c.metric_date == TODAY)
            .values(reply_rate_mtd="NaN", positive_replies_mtd=None, emails_sent_today=-5)
        )
    response = browse.get(PAGE)
    assert response.status_code == 200
    cells = table_cells(response.text)[TODAY]
    assert cells["positive_replies_mtd"] == "–"
    assert cells["emails_sent_today"] == "! −5"
    assert cells["reply_rate_mtd"] == "! –"
    assert "NaN" not in response.text
    assert "Can&#39;t be right: not a number" in response.text
    assert "Can&#39;t be right: below 0" in response.text


def test_a_past_month_says_that_its_numbers_are_final(browse: httpx.Client) -> None:
    page = text_of(browse.get(f"{PAGE}?month=2026-02").text)
    assert "Saturday, 28 February 2026 Final" in page
    assert "The month is over" in page
    assert "Live" not in page
    assert "a day left" not in page
    assert "Open problems now" in page, "the checks are about the rows as they are now"


def test_a_past_day_is_told_in_the_past(browse: httpx.Client) -> None:
    page = text_of(browse.get(f"{PAGE}?date=2026-03-12").text)
    assert "Positive replies in March 2026 until the 12" in page
    assert "Emails sent in March 2026 until the 12" in page
    assert "would have reached the target · 20 days left then" in page
    assert "today" not in page.lower().replace("back to today", "")


def test_a_client_without_a_row_of_the_day_says_so_and_links_to_its_last(
    browse: httpx.Client, engine: Engine
) -> None:
    put_rows(engine, "quay", [date(2026, 3, 16)])
    put_target(engine, "quay", 50)
    page = browse.get("/clients/quay").text
    assert "no target" not in page.lower(), "the row is missing, and not the target"
    assert "No numbers of Wednesday, 18 March 2026" in text_of(page)
    assert 'href="/clients/quay?date=2026-03-16"' in page
    assert tiles(page)["positive_replies_mtd"] == "–"


def test_a_client_without_any_row_has_a_page(browse: httpx.Client) -> None:
    response = browse.get("/clients/quay")
    assert response.status_code == 200
    assert "this client has no row yet" in response.text
    assert set(tiles(response.text).values()) == {"–"}
    assert "no numbers yet" in response.text


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/clients/nobody", 404, "There is no client nobody."),
        ("/clients/%00", 404, "There is no client [U+0000]."),
        ("/clients/%00/report", 404, "There is no client [U+0000]."),
        (f"{PAGE}?date=2026-03-19", 400, "2026-03-19 is in the future"),
        (f"{PAGE}?month=2026-04", 400, "2026-04 is in the future"),
        (f"{PAGE}?date=yesterday", 400, "That is no day"),
        (f"{PAGE}?month=2026-13", 400, "That is no day"),
        (f"{PAGE}?date=0001-01-01", 400, "There are no numbers of 0001-01-01."),
    ],
)
def test_what_can_not_be_shown_is_refused_with_a_sentence(
    browse: httpx.Client, path: str, status: int, said: str
) -> None:
    response = browse.get(path)
    assert response.status_code == status
    assert said in text_of(response.text)
