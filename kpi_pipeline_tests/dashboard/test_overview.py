"""The overview: each number of each row, with its marks, and what the page takes."""

import re
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, select

from kpi_pipeline.dashboard.app import create_app
from kpi_pipeline.dashboard.overview.columns import COLUMNS
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline.domain.columns import COUNTS, PERCENTAGES
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.conftest import NOW
from kpi_pipeline_tests.dashboard.browsing import browsing
from kpi_pipeline_tests.dashboard.overview_page import (
    chips_of,
    marks_of,
    number_in,
    numbers_of,
    page,
    rows_of,
    statements_of,
)
from kpi_pipeline_tests.dashboard.pages import elements, text_of, valid
from kpi_pipeline_tests.dashboard.rows import (
    ONE_DAY,
    TODAY,
    put_clients,
    put_rows,
)

NUMBERS = (*COUNTS, *PERCENTAGES, "monthly_kpi_target", "monthly_sending_target")
PLANS = ("emails_scheduled_today", "emails_scheduled_tomorrow")
ALL = ",".join(COLUMNS)


@pytest.mark.parametrize("layout", ["table", "cards"])
def test_every_number_on_the_page_equals_its_row(
    browse: httpx.Client, engine: Engine, layout: str
) -> None:
    put_clients(engine, "acme", "birch", "cedar")
    put_rows(engine, "acme", emails_scheduled_today=1_234, emails_scheduled_tomorrow=0)
    put_rows(engine, "birch", target=None, sending_target=None)
    nothing: dict[str, Any] = dict.fromkeys(NUMBERS)
    put_rows(engine, "cedar", **nothing)
    put_rows(engine, "acme", [TODAY - ONE_DAY], positive_replies_mtd=999_999)
    with engine.connect() as connection:
        stored = {
            row["workspace"]: row
            for row in connection.execute(
                select(client_metrics).where(client_metrics.c.metric_date == TODAY)
            ).mappings()
        }
    shown = rows_of(page(browse, f"?cols={ALL}&view={layout}"))
    assert shown.keys() == stored.keys()
    for workspace, row in stored.items():
        seen = set()
        for column, text in numbers_of(shown[workspace]):
            seen.add(column)
            if column == "daily_quota":
                continue
            value, number = row[column], number_in(text)
            if value is None or number is None:
                assert (value, number) == (None, None), f"{workspace} {column}: {text}"
            else:
                places = -min(0, int(number.as_tuple().exponent))
                assert number == round(Decimal(value), places), f"{workspace} {column}: {text}"
        assert seen >= {*NUMBERS, *PLANS}, f"{workspace} lacks {({*NUMBERS, *PLANS}) - seen}"


def test_the_daily_quota_is_what_is_left_of_the_sending_target(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, "acme")
    put_rows(engine, "acme", sending_target=10_000, emails_sent_mtd=3_000, emails_sent_today=200)
    found = dict(numbers_of(rows_of(page(browse))["acme"]))
    # 14 days are left of March, today among them: (10,000 - 2,800) / 14, rounded up.
    assert found["daily_quota"] == "515"


def test_null_on_the_page_is_a_dash_with_its_reason_and_never_a_zero(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, "acme")
    put_rows(engine, "acme", positive_replies_last_30_days=None, target=None)
    row = rows_of(page(browse))["acme"]
    found = {it.get("data-c"): it for it in row.iter() if it.get("data-c")}
    for column, reason in (
        ("positive_replies_last_30_days", "A day of this period was never fetched"),
        ("monthly_kpi_target", "No target for the month"),
    ):
        assert text_of(found[column]) == "–"
        assert found[column].get("title") == reason


def test_clients_without_a_row_are_on_the_page_with_the_reason(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, "acme", "birch", "cedar")
    put_rows(engine, "acme")
    put_rows(engine, "birch", [TODAY - 3 * ONE_DAY])
    document = page(browse)
    rows = {it: text_of(row) for it, row in rows_of(document).items()}
    assert rows.keys() == {"acme", "birch", "cedar"}
    assert "No row of today yet; the last before it is of 15 Mar 2026" in rows["birch"]
    assert "No row yet: the next sync writes the first, tonight at 00:01 CDT" in rows["cedar"]
    assert all(text == "–" for _, text in numbers_of(rows_of(document)["cedar"]))
    assert "1 of 3 clients" in text_of(elements(document, "header")[0])
    assert "2 no data" in chips_of(document)


def test_inactive_clients_are_on_the_pages_of_their_days_alone(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, "acme")
    put_clients(engine, "gone", active=False)
    for workspace in ("acme", "gone"):
        put_rows(engine, workspace, [TODAY - ONE_DAY, TODAY])
    assert rows_of(page(browse)).keys() == {"acme"}
    yesterday = rows_of(page(browse, "?date=2026-03-17"))
    assert yesterday.keys() == {"acme", "gone"}
    assert "no longer active" in text_of(yesterday["gone"])


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"emails_sent_mtd": -5}, "below 0"),
        ({"bounce_rate_mtd": 140}, "140.00 % is more than all emails sent"),
        ({"projection_positive_replies_eom": 1}, "projection positive replies only 1"),
        ({"positive_replies_last_7_days": 99}, "positive replies last 7 days 99"),
    ],
)
def test_a_value_that_cannot_be_right_is_marked_in_its_place_with_the_reason(
    browse: httpx.Client, engine: Engine, changed: dict[str, Any], reason: str
) -> None:
    put_clients(engine, "acme", "birch")
    put_rows(engine, "acme", **changed)
    put_rows(engine, "birch")
    rows = rows_of(page(browse))
    assert any(reason in it for it in marks_of(rows["acme"])), marks_of(rows["acme"])
    assert marks_of(rows["birch"]) == []
    assert dict(numbers_of(rows["acme"])).keys() == dict(numbers_of(rows["birch"])).keys()


def test_a_name_from_outside_is_shown_as_text(browse: httpx.Client, engine: Engine) -> None:
    put_clients(engine, "acme", name="<script>alert(1)</script>")
    put_clients(engine, "birch", name="Acme \u202emoc.live\u202c", display_name='" onclick="x()')
    put_clients(engine, "cedar", name="\u2066Bi\u200fdi\u0007\u2069")
    answer = browse.get("/")
    valid(answer.text)
    assert "<script>alert" not in answer.text
    assert not re.search("[\u200f\u202a-\u202e\u2066-\u2069\u0007]", answer.text)
    names = [text_of(it) for it in elements(valid(answer.text), "bdi")]
    assert sorted(names) == [
        '" onclick="x()',
        "<script>alert(1)</script>",
        "[U+2066]Bi[U+200F]di[U+0007][U+2069]",
    ]


def test_the_page_takes_two_queries_and_one_for_the_login(engine: Engine) -> None:
    put_clients(engine, "acme")
    put_rows(engine, "acme")
    password = "a password of the tests"
    zone = ZoneInfo("America/Chicago")
    settings = Settings(timezone=zone, bison_timezone=zone, web_password=SecretStr(password))
    with browsing(create_app(Site(settings, engine, lambda: NOW))) as browse:
        answer = browse.post("/login", data={"user": "operator", "password": password})
        assert answer.status_code == 303, answer.text
        browse.get("/")
        with statements_of(engine) as statements:
            assert len(rows_of(page(browse))) == 1
    assert 2 <= len(statements) <= 3, statements


def test_a_page_with_everything_is_small(browse: httpx.Client, engine: Engine) -> None:
    put_clients(engine, *(f"client-{number:02d}" for number in range(26)))
    for number in range(26):
        put_rows(engine, f"client-{number:02d}", [TODAY - n * ONE_DAY for n in range(60)])
    answer = browse.get("/", headers={"accept-encoding": "gzip"})
    size = int(answer.headers["content-length"])
    for it in re.findall(r'(?:href|src)="(/static/[^"]+)"', answer.text):
        size += int(browse.get(it, headers={"accept-encoding": "gzip"}).headers["content-length"])
    assert size <= 120_000
