"""The overview: how old its data is, which day it shows, and its totals."""

import re
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from sqlalchemy import Engine

from kpi_pipeline.dashboard.app import create_app
from kpi_pipeline.dashboard.overview.columns import COLUMNS
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.conftest import NOW
from kpi_pipeline_tests.dashboard.browsing import browsing
from kpi_pipeline_tests.dashboard.overview_page import (
    badge_of,
    marks_of,
    numbers_of,
    page,
    rows_of,
    tiles_of,
)
from kpi_pipeline_tests.dashboard.pages import elements, text_of
from kpi_pipeline_tests.dashboard.rows import (
    ONE_DAY,
    TODAY,
    put_clients,
    put_outcome,
    put_rows,
)

ALL = ",".join(COLUMNS)


@pytest.mark.parametrize(
    ("minutes", "said"),
    [(1, "Live · 1 min ago"), (40, "Fresh · 40 min ago"), (300, "Stale · 5 h 0 min old · Birch")],
)
def test_the_badge_is_the_age_of_the_data_and_never_of_the_reading(
    browse: httpx.Client, engine: Engine, minutes: int, said: str
) -> None:
    put_clients(engine, "acme", "birch")
    as_of = NOW - timedelta(minutes=minutes)
    put_rows(engine, "birch", as_of=as_of)
    # Written a moment ago, from facts of then.
    put_rows(engine, "acme", as_of=min(as_of, NOW - timedelta(minutes=minutes)), updated_at=NOW)
    expected = said.replace("Birch", "Acme, Birch")
    for _ in range(2):
        assert badge_of(page(browse)) == expected


def test_one_old_client_makes_the_page_stale_whatever_events_the_others_have(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, "acme", "birch")
    put_rows(engine, "acme", source="webhook", updated_at=NOW)
    put_rows(engine, "birch", as_of=NOW - timedelta(hours=9), source="webhook", updated_at=NOW)
    assert badge_of(page(browse)) == "Stale · 9 h 0 min old · Birch"


def test_an_event_makes_a_fresh_page_live(browse: httpx.Client, engine: Engine) -> None:
    put_clients(engine, "acme")
    put_rows(
        engine,
        "acme",
        as_of=NOW - timedelta(minutes=20),
        source="webhook",
        updated_at=NOW - timedelta(seconds=12),
    )
    document = page(browse)
    assert badge_of(document) == "Live · 12 s ago"
    assert text_of(rows_of(document)["acme"]).endswith("12 s")


def test_without_any_data_the_page_says_so(browse: httpx.Client, engine: Engine) -> None:
    assert "kpi clients import" in text_of(page(browse))
    put_clients(engine, "acme")
    document = page(browse)
    assert badge_of(document) == "No data"
    assert "No client has a row of today yet" in text_of(document)


def test_facts_from_the_future_are_marked_and_never_live(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, "acme")
    put_rows(engine, "acme", as_of=NOW, updated_at=NOW)
    with engine.begin() as connection:
        later = NOW + timedelta(hours=2)
        connection.execute(client_metrics.update().values(as_of=later))
    document = page(browse)
    assert badge_of(document) == "No data"
    assert "in the future" in marks_of(rows_of(document)["acme"])[0]


def test_totals_are_over_the_clients_shown_and_say_who_has_no_target(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, "acme", "birch", "cedar")
    base: dict[str, Any] = {"projection_positive_replies_eom": 100, "positive_replies_today": 3}
    put_rows(engine, "acme", target=60, positive_replies_mtd=30, **base)
    put_rows(engine, "birch", target=40, positive_replies_mtd=20, **base)
    put_rows(engine, "cedar", target=None, positive_replies_mtd=7, **base)
    put_rows(engine, "acme", [TODAY - ONE_DAY], positive_replies_today=5)
    put_rows(engine, "acme", [TODAY - 7 * ONE_DAY], positive_replies_today=1)
    month, today, *_ = tiles_of(page(browse))
    assert month == (
        "Positive replies this month 57 of 100 50 % of target · projected 300 (200 %) "
        "1 without a target: 7 not in the percentage"
    )
    assert today == (
        "Positive replies today 9 so far −2 on all of yesterday (5), 1 of 3 clients "
        "+2 on all of last Wednesday (1), 1 of 3 clients"
    )
    assert tiles_of(page(browse, "?q=birch"))[0] == (
        "Positive replies this month 20 of 40 50 % of target · projected 100 (250 %)"
    )


def test_emails_are_of_their_target_and_of_the_plan(browse: httpx.Client, engine: Engine) -> None:
    put_clients(engine, "acme", "birch")
    numbers: dict[str, Any] = {
        "emails_sent_mtd": 500,
        "projection_emails_eom": 900,
        "emails_sent_today": 50,
    }
    put_rows(
        engine,
        "acme",
        sending_target=1_000,
        emails_scheduled_today=80,
        emails_scheduled_tomorrow=90,
        as_of=NOW - timedelta(minutes=20),
        **numbers,
    )
    put_rows(engine, "birch", sending_target=1_000, **numbers)
    put_rows(engine, "acme", [TODAY - ONE_DAY], emails_sent_today=40)
    put_rows(engine, "birch", [TODAY - ONE_DAY], emails_sent_today=80)
    put_rows(engine, "birch", [TODAY - 7 * ONE_DAY], emails_sent_today=20)
    *_, month, today = tiles_of(page(browse))
    assert month == (
        "Emails sent this month 1,000 of 2,000 50 % of target · projected 1,800 (90 %)"
    )
    assert today == (
        "Emails today 100 of 80 planned −20 on all of yesterday (120) "
        "+30 on all of last Wednesday (20), 1 of 2 clients tomorrow 90 planned · 1 without a plan "
        "all as of 14:40 CDT or later"
    )


@pytest.mark.parametrize("query", ["?month=2026-02", "?date=2026-03-12"])
def test_a_past_day_of_the_overview_is_not_called_today(
    browse: httpx.Client, engine: Engine, query: str
) -> None:
    put_clients(engine, "acme", "birch")
    put_rows(engine, "acme", [TODAY.replace(day=1) - ONE_DAY, TODAY.replace(day=12)])
    text = text_of(page(browse, f"{query}&cols={ALL}"))
    assert not re.search(
        "today|yesterday|tomorrow|this month", text.replace("Back to today", ""), re.I
    )


def test_a_past_day_that_was_never_closed_is_not_called_final(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, "acme")
    put_rows(engine, "acme", [TODAY - ONE_DAY], as_of=NOW - ONE_DAY)
    badge = badge_of(page(browse, "?date=2026-03-17"))
    assert badge == "Not final · as of Tue 17 Mar 2026, 15:00 CDT · Acme"


def test_the_page_names_whose_day_it_shows_where_zones_differ(engine: Engine) -> None:
    settings = Settings(
        timezone=ZoneInfo("Europe/Berlin"), bison_timezone=ZoneInfo("America/Chicago")
    )
    with browsing(create_app(Site(settings, engine, lambda: NOW))) as browse:
        header = text_of(elements(page(browse), "header")[0])
    assert "Wednesday, 18 March 2026 (Email Bison's day, America/Chicago)" in header


def test_a_past_month_shows_its_last_day_and_no_problem_of_today(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, "acme")
    last = TODAY.replace(day=1) - ONE_DAY
    put_rows(engine, "acme", [last, TODAY])
    put_outcome(engine, "plausible", [{"workspace": "acme", "problem": "5 % bounced"}])
    document = page(browse, "?month=2026-02")
    header = text_of(elements(document, "header")[0])
    assert "Saturday, 28 February 2026" in header
    assert badge_of(document) == "Final · as of Sun 1 Mar 2026, 00:00 CST"
    assert "5 % bounced" not in text_of(document)
    assert tiles_of(document)[0].startswith("Positive replies in February 2026")
    assert dict(numbers_of(rows_of(document)["acme"]))["daily_quota"] == "–", "the month is over"
