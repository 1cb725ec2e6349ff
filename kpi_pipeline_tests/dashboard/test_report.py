"""A client's month, to hand on."""

import csv
import io
import re
from datetime import date, timedelta

import httpx
import pytest
from sqlalchemy import Engine, select

from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline_tests.dashboard.pages import parsed, text_of, valid
from kpi_pipeline_tests.dashboard.rows import TODAY, put_clients, put_rows

MARCH = days_between(date(2026, 2, 1), TODAY)
PAGE = "/clients/harbor/report"


@pytest.fixture(autouse=True)
def _rows(engine: Engine) -> None:
    put_clients(engine, "harbor", "quay")
    put_rows(engine, "harbor", MARCH)


def test_every_number_of_the_report_equals_its_row(browse: httpx.Client, engine: Engine) -> None:
    shown = dict(re.findall(r'data-c="(\w+)">([^<]+)<', browse.get(PAGE).text))
    with engine.connect() as connection:
        row = (
            connection.execute(select(client_metrics).where(client_metrics.c.metric_date == TODAY))
            .mappings()
            .one()
        )
    assert len(shown) >= 9
    for name, text in shown.items():
        places = 2 if "rate" in name else 0
        assert text.removesuffix(" %") == f"{row[name]:,.{places}f}", name


def test_the_weeks_add_up_to_the_month(browse: httpx.Client, engine: Engine) -> None:
    page = browse.get(f"{PAGE}?month=2026-02").text
    weeks = re.findall(r"<tr><th[^>]*>([^<]+)</th>((?:<td>[\d,]+</td>)+)</tr>", page)
    assert [name for name, _ in weeks] == [
        "1 Feb 2026",
        "2 Feb 2026 to 8 Feb 2026",
        "9 Feb 2026 to 15 Feb 2026",
        "16 Feb 2026 to 22 Feb 2026",
        "23 Feb 2026 to 28 Feb 2026",
        "February 2026",
    ]
    counts = [
        [int(it.replace(",", "")) for it in re.findall(r">([\d,]+)<", row)] for _, row in weeks
    ]
    assert [sum(column) for column in zip(*counts[:-1], strict=True)] == counts[-1]


def test_a_week_with_a_day_that_was_never_fetched_is_a_dash(
    browse: httpx.Client, engine: Engine
) -> None:
    put_rows(engine, "quay", [it for it in MARCH if it != date(2026, 3, 8)])
    page = browse.get("/clients/quay/report").text
    week = page.partition("2 Mar 2026 to 8 Mar 2026")[2].partition("</tr>")[0]
    assert week.count("–</td>") == 4
    assert "never fetched" in week


def test_a_running_month_has_a_projection_and_a_past_one_has_none(browse: httpx.Client) -> None:
    assert "Projected for March" in browse.get(PAGE).text
    assert "Projected" not in browse.get(f"{PAGE}?month=2026-02").text


def test_the_report_names_no_other_client_and_no_problem(browse: httpx.Client) -> None:
    page = browse.get(PAGE).text
    assert "Harbor" in page
    assert "Quay" not in page
    assert "sync" not in page.partition("<main")[2]


def test_the_csv_has_a_line_for_each_day_with_headings_for_people(browse: httpx.Client) -> None:
    answer = browse.get(f"{PAGE}.csv?month=2026-02")
    assert answer.headers["content-disposition"] == 'attachment; filename="harbor_2026-02.csv"'
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert [line["Date"] for line in lines] == [
        f"{day}" for day in days_between(date(2026, 2, 1), date(2026, 2, 28))
    ]
    sent = [int(line["Emails sent"]) for line in lines]
    assert int(lines[-1]["Emails sent, month to date"]) == sum(sent)


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/clients/nobody/report", 404, "There is no client nobody."),
        (f"{PAGE}?date={TODAY + timedelta(days=1)}", 400, "is in the future"),
    ],
)
def test_a_report_that_can_not_be_is_refused_with_a_sentence(
    browse: httpx.Client, path: str, status: int, said: str
) -> None:
    answer = browse.get(path)
    assert answer.status_code == status
    assert said in answer.text


def test_the_report_is_valid_and_shows_a_name_from_outside_as_text(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, "script", name="<script>alert(1)</script>\u202e")
    for path in ("/clients/script/report", f"{PAGE}?month=2026-02"):
        valid(browse.get(path).text)
    answer = browse.get("/clients/script/report")
    assert "<script>alert(1)</script>[U+202E]" in text_of(parsed(answer.text))
