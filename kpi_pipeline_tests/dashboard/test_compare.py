"""Two to six clients over one another."""

import re
from datetime import date, timedelta

import httpx
import pytest
from sqlalchemy import Engine, select

from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline_tests.dashboard.client_pages import text_of
from kpi_pipeline_tests.dashboard.rows import TODAY, put_clients, put_rows

SIX = ["harbor", "quay", "sloop", "barge", "ketch", "yawl"]
MARCH = days_between(date(2026, 2, 1), TODAY)


@pytest.fixture(autouse=True)
def _rows(engine: Engine) -> None:
    put_clients(engine, *SIX, "dinghy")
    for place, workspace in enumerate(SIX):
        put_rows(engine, workspace, MARCH, target=50 + place if place else None)


def of(*workspaces: str, **more: str) -> str:
    return "/compare?" + "&".join(
        [*(f"c={it}" for it in workspaces), *(f"{name}={value}" for name, value in more.items())]
    )


def lines_of(page: str) -> list[str]:
    """The classes of the lines in the wide chart."""
    return re.findall(
        r'<polyline class="(series s\d)"', page.split('<div class="chart narrow">')[0]
    )


@pytest.mark.parametrize("number", [2, 6])
def test_two_to_six_clients_have_a_line_and_a_row_each(
    browse: httpx.Client, engine: Engine, number: int
) -> None:
    response = browse.get(of(*SIX[:number]))
    assert response.status_code == 200
    page = response.text
    assert lines_of(page) == [f"series s{place}" for place in range(1, number + 1)]
    with engine.connect() as connection:
        rows = {
            row["workspace"]: row
            for row in connection.execute(
                select(client_metrics).where(client_metrics.c.metric_date == TODAY)
            ).mappings()
        }
    shown = re.findall(r'<tr data-client="(\w+)">(.*?)</tr>', page, re.S)
    assert [workspace for workspace, _ in shown] == SIX[:number]
    for workspace, cells in shown:
        found = dict(re.findall(r'data-c="(\w+)">([^<]*)<', cells))
        assert len(found) == 11
        for name, text in found.items():
            value = rows[workspace][name]
            places = 2 if "rate" in name else 0
            expected = "–" if value is None else f"{value:,.{places}f}".replace("-", "−")
            assert text.removesuffix(" %").lstrip("+") == expected, name


@pytest.mark.parametrize(
    ("workspaces", "status", "said"),
    [
        ([], 200, "Choose two to six clients"),
        (["harbor"], 200, "Choose two to six clients"),
        (["harbor", "harbor"], 200, "Choose two to six clients"),
        ([*SIX, "dinghy"], 400, "7 clients are too many for one chart: choose at most 6."),
        (["harbor", "nobody"], 404, "There is no client nobody."),
    ],
    ids=["none", "one", "one twice", "seven", "an unknown one"],
)
def test_other_choices_get_a_sentence_and_keep_the_form(
    browse: httpx.Client, workspaces: list[str], status: int, said: str
) -> None:
    response = browse.get(of(*workspaces))
    assert response.status_code == status
    assert said in text_of(response.text)
    checked = re.findall(r'value="(\w+)" checked> <bdi>', response.text)
    assert checked == sorted({*workspaces} - {"nobody"})
    assert "<svg viewBox" not in response.text


def test_percent_of_target_leaves_out_clients_without_one(browse: httpx.Client) -> None:
    page = browse.get(of("harbor", "quay", "sloop", scale="target")).text
    assert lines_of(page) == ["series s2", "series s3"]
    assert "Without a target above 0, and so without a line: Harbor." in text_of(page)
    alone = browse.get(of("harbor", "dinghy", scale="target")).text
    assert "None of these clients has a target above 0" in alone


def test_the_choices_are_in_the_address_and_unknown_ones_are_refused(browse: httpx.Client) -> None:
    page = browse.get(of("harbor", "quay", of="emails", by="day", scale="numbers")).text
    assert "Emails sent, March 2026, each day" in text_of(page)
    assert re.findall(r'value="(\w+)" checked> (?!<)', page) == ["emails", "day", "numbers"]
    refused = browse.get(of("harbor", "quay", of="<script>"))
    assert refused.status_code == 400
    assert "There is no of=&lt;script&gt;. Use one of: positive_replies" in refused.text


def test_a_past_month_is_compared_at_its_last_day(browse: httpx.Client) -> None:
    page = browse.get(of("harbor", "quay", month="2026-02")).text
    assert "Their rows of Saturday, 28 February 2026" in text_of(page)
    assert 'href="/clients/quay?month=2026-02"' in page
    assert 'name="month" value="2026-02"' in page
    assert 'href="/compare?c=harbor&amp;c=quay&amp;month=2026-01"' in page


def test_a_client_without_a_row_of_the_day_has_dashes_and_its_reason(browse: httpx.Client) -> None:
    page = browse.get(of("harbor", "dinghy")).text
    assert "Dinghy no row of this day – –" in text_of(page)
    assert lines_of(page) == ["series s1"]


def test_a_line_that_ends_early_has_its_label_at_its_end(
    browse: httpx.Client, engine: Engine
) -> None:
    put_rows(engine, "dinghy", days_between(date(2026, 3, 1), TODAY - timedelta(days=12)))
    page = browse.get(of("harbor", "dinghy")).text
    wide = page.split('<div class="chart narrow">')[0]
    places = {
        name: float(x) for x, name in re.findall(r'of-series s\d" x="([\d.]+)"[^>]*>(\w+)<', wide)
    }
    assert places["Dinghy"] < places["Harbor"]
