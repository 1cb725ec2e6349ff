"""The page of how right projections were."""

import re
from datetime import date

import httpx
import pytest
from sqlalchemy import Engine, update

from kpi_pipeline.dashboard.formatting import number, signed_percent
from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.frames import read_accuracy
from kpi_pipeline_tests.dashboard.client_pages import text_of
from kpi_pipeline_tests.dashboard.rows import TODAY, put_clients, put_rows


@pytest.fixture(autouse=True)
def _rows(engine: Engine) -> None:
    put_clients(engine, "harbor", "quay", "sloop")
    put_rows(engine, "harbor", days_between(date(2025, 11, 1), date(2026, 3, 18)))
    put_rows(engine, "quay", days_between(date(2026, 1, 15), date(2026, 3, 18)))


def months(page: str) -> dict[str, dict[str, list[str]]]:
    """The texts of the cells of each month and client; those of all clients are under ""."""
    return {
        month: {
            workspace: [text_of(it) for it in re.findall(r"<td.*?</td>", cells, re.S)]
            for workspace, cells in re.findall(
                r'<tr data-client="([\w-]*)">(.*?)</tr>', section, re.S
            )
        }
        for month, section in re.findall(r'<h2 id="m(\d{4}-\d\d)-01"(.*?)</section>', page, re.S)
    }


def test_every_number_is_that_of_the_command(browse: httpx.Client, engine: Engine) -> None:
    shown = months(browse.get("/accuracy?months=4").text)
    expected = read_accuracy(engine, today=TODAY, months=4)
    assert list(shown) == ["2026-02", "2026-01", "2025-12", "2025-11"]
    found = 0
    columns = ("projected_10th", "error_10th", "projected_20th", "error_20th", "actual")
    for row in expected.astype(object).where(expected.notna(), None).to_dict("records"):
        texts = [
            (signed_percent if "error" in column else number)(row[f"{name}_{column}"])
            for name in ("positive_replies", "emails")
            for column in columns
        ]
        assert shown[f"{row['month']:%Y-%m}"][row["workspace"] or ""] == texts
        found += 1
    assert found == 4 * 4


def test_all_clients_are_those_of_which_all_numbers_are_known(browse: httpx.Client) -> None:
    page = text_of(browse.get("/accuracy").text)
    assert "2 of 3 clients" in page
    assert "1 of 3 clients" in page


def test_the_typical_error_is_the_median_over_clients_and_months(
    browse: httpx.Client, engine: Engine
) -> None:
    with engine.begin() as connection:
        for day, projection in ((10, 90), (20, 130)):
            connection.execute(
                update(client_metrics)
                .where(client_metrics.c.metric_date == date(2026, 2, day))
                .values(projection_positive_replies_eom=projection)
            )
        connection.execute(
            update(client_metrics)
            .where(client_metrics.c.metric_date == date(2026, 2, 28))
            .values(positive_replies_mtd=100)
        )
    page = text_of(browse.get("/accuracy?months=1").text)
    assert "10 % on the 10th 30 % on the 20th Half of 2 projections were closer" in page


def test_without_a_past_month_the_page_says_so(browse: httpx.Client, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(client_metrics.delete())
    page = text_of(browse.get("/accuracy").text)
    assert "No month of these is judged yet" in page


@pytest.mark.parametrize("months_asked", ["0", "25", "-1", "x", "٣", "9999999999"])
def test_other_numbers_of_months_are_refused_with_a_sentence(
    browse: httpx.Client, months_asked: str
) -> None:
    response = browse.get("/accuracy", params={"months": months_asked})
    assert response.status_code == 400
    assert "months takes a number from 1 to 24." in text_of(response.text)
