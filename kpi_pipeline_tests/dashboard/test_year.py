"""The table of a year: clients and months."""

import re
from datetime import date

import httpx
import pytest
from sqlalchemy import Engine, delete, select, update

from kpi_pipeline.db.tables import client_metrics, clients
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline_tests.dashboard.client_pages import text_of
from kpi_pipeline_tests.dashboard.rows import TODAY, put_clients, put_rows

LAST_YEAR = days_between(date(2025, 1, 1), date(2025, 12, 31))
THIS_YEAR = days_between(date(2026, 1, 1), TODAY)


@pytest.fixture(autouse=True)
def _rows(engine: Engine) -> None:
    put_clients(engine, "harbor", "quay", "sloop")
    put_rows(engine, "harbor", [*LAST_YEAR, *THIS_YEAR], target=60)
    put_rows(engine, "quay", THIS_YEAR, target=None)


def table(page: str) -> dict[str, list[str]]:
    """The texts of the cells of each client, and of all clients under ""."""
    found = re.findall(r'<tr data-client="([\w-]*)">(.*?)</tr>', page, re.S)
    return {
        workspace: [text_of(cell) for cell in re.findall(r"<td.*?</td>", cells, re.S)]
        for workspace, cells in found
    }


def test_each_month_is_its_last_row_with_the_percent_of_that_row(
    browse: httpx.Client, engine: Engine
) -> None:
    shown = table(browse.get("/year?year=2025").text)["harbor"]
    with engine.connect() as connection:
        rows = {
            row.metric_date: row
            for row in connection.execute(
                select(client_metrics).where(client_metrics.c.workspace == "harbor")
            )
        }
    ends = [max(day for day in LAST_YEAR if day.month == number) for number in range(1, 13)]
    assert shown[:12] == [
        f"{rows[end].positive_replies_mtd} {rows[end].mtd_leads_progress:.0f} %" for end in ends
    ]
    total = sum(rows[end].positive_replies_mtd for end in ends)
    assert shown[12] == f"{total:,} {total / (12 * 60) * 100:.0f} %"


def test_the_month_that_runs_says_until_when_and_is_not_shaded(browse: httpx.Client) -> None:
    page = browse.get("/year").text
    shown = table(page)["harbor"]
    assert "until 18 Mar" in shown[2]
    assert shown[3:12] == ["– this month has not begun"] * 9
    march = re.findall(r'<td class="year (\w*)"', page.split('data-client="harbor"')[1])[2]
    assert march == ""


def test_a_past_month_that_ends_early_says_so(browse: httpx.Client, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            delete(client_metrics).where(
                client_metrics.c.workspace == "quay",
                client_metrics.c.metric_date > date(2026, 2, 20),
            )
        )
    shown = table(browse.get("/year").text)["quay"]
    assert "until 20 Feb" in shown[1]
    assert shown[2] == "– no row in this month"


def test_totals_add_up_and_take_percent_of_clients_with_a_target(
    browse: httpx.Client, engine: Engine
) -> None:
    shown = table(browse.get("/year").text)
    with engine.connect() as connection:
        rows = connection.execute(
            select(client_metrics).where(client_metrics.c.metric_date == date(2026, 1, 31))
        ).all()
    counts = {row.workspace: row.positive_replies_mtd for row in rows}
    assert shown[""][0] == f"{sum(counts.values())} {counts['harbor'] / 60 * 100:.0f} %"
    assert shown["quay"][0] == f"{counts['quay']} no target"
    assert shown["sloop"] == [*["– no row in this month"] * 3, *shown["sloop"][3:]]
    assert shown["sloop"][12] == "– no month with numbers"


def test_a_month_with_a_gap_is_a_dash_and_no_zero(browse: httpx.Client, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            update(client_metrics)
            .where(client_metrics.c.metric_date == date(2026, 2, 28))
            .values(positive_replies_mtd=None, mtd_leads_progress=None)
        )
    shown = table(browse.get("/year").text)
    assert shown["harbor"][1] == "– a day of this month was never fetched"
    assert shown[""][1] == "– no month with numbers"


def test_a_percentage_that_is_no_number_is_left_out(browse: httpx.Client, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(update(client_metrics).values(mtd_leads_progress="NaN"))
    response = browse.get("/year")
    assert response.status_code == 200
    assert "NaN" not in response.text


def test_inactive_clients_are_there_for_years_in_which_they_have_rows(
    browse: httpx.Client, engine: Engine
) -> None:
    with engine.begin() as connection:
        connection.execute(
            update(clients).where(clients.c.workspace != "harbor").values(active=False)
        )
    page = browse.get("/year").text
    assert set(table(page)) == {"harbor", "quay", ""}
    assert "Quay inactive" in text_of(page)
    assert set(table(browse.get("/year?year=2025").text)) == {"harbor", ""}


def test_years_with_rows_are_linked(browse: httpx.Client) -> None:
    now, before = browse.get("/year").text, browse.get("/year?year=2025").text
    assert 'href="/year?year=2025"' in now
    assert 'href="/year?year=2027"' not in now
    assert 'href="/year?year=2026"' in before
    assert 'href="/year?year=2024"' not in before


@pytest.mark.parametrize(
    ("year", "said"),
    [("2027", "There are no numbers of 2027."), ("0001", "no numbers"), ("now", "That is no year")],
)
def test_another_year_is_refused_with_a_sentence(
    browse: httpx.Client, year: str, said: str
) -> None:
    response = browse.get(f"/year?year={year}")
    assert response.status_code == 400
    assert said in text_of(response.text)


def test_a_hundred_clients_are_on_a_page_and_the_totals_are_of_all(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, *(f"client-{number:03}" for number in range(120)))
    put_rows(engine, "client-119", THIS_YEAR, target=60)
    first, second = (table(browse.get(f"/year?page={number}").text) for number in (1, 2))
    assert (len(first), len(second)) == (101, 24)
    assert first[""] == second[""]
    assert set(first) & set(second) == {""}
    assert "client-119" in second
    assert table(browse.get("/year?page=999").text) == second
    page = browse.get("/accuracy?months=1").text
    assert page.count("<tr data-client=") == 101
    assert 'href="/accuracy?months=1&amp;page=2"' in page
