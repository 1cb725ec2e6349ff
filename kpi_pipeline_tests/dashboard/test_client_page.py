"""The page of one client: its numbers, and what it says where there are none."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html import unescape
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, Engine, delete, event, insert, select, update

from kpi_pipeline.dashboard.app import create_app
from kpi_pipeline.dashboard.client import changes
from kpi_pipeline.dashboard.client_view import COLUMNS
from kpi_pipeline.dashboard.look_back import LookBack
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline.db.dashboard.client import NUMBERS
from kpi_pipeline.db.tables import (
    client_api_keys,
    client_metrics,
    clients,
    raw_bison_stats,
    sync_log,
    target_changes,
    webhook_events,
)
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.domain.columns import PERCENTAGES
from kpi_pipeline.instances import InstanceSetting
from kpi_pipeline_tests.conftest import NOW
from kpi_pipeline_tests.dashboard.browsing import browsing
from kpi_pipeline_tests.dashboard.rows import (
    ONE_DAY,
    TODAY,
    put_clients,
    put_outcome,
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


def table_cells(page: str) -> dict[date, dict[str, str]]:
    """The text of each number of the month's table, by day and column."""
    found = {}
    for day, row in re.findall(
        r'<tr id="day-[-\d]+" data-day="([-\d]+)".*?>(.*?)</tr>', page, re.S
    ):
        found[date.fromisoformat(day)] = dict(
            re.findall(r'<td data-c="(\w+)"[^>]*>([^<]*)</td>', row)
        )
    return found


def tiles(page: str) -> dict[str, str]:
    """The text of each number above the table, by column."""
    numbers = page.split('<div id="numbers">')[1].split('<section id="charts"')[0]
    return dict(re.findall(r'<span data-c="(\w+)">([^<]*)</span>', numbers))


def text_of(page: str) -> str:
    """What a reader reads, in one line."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


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
    assert 'title="this day was never fetched"' in row[0]
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
    assert (cells["reply_rate_mtd"], cells["positive_replies_mtd"]) == ("–", "–")
    assert cells["emails_sent_today"] == "−5"
    assert "NaN" not in response.text
    assert 'title="its row holds no number here"' in response.text


def test_a_past_month_says_that_its_numbers_are_final(browse: httpx.Client) -> None:
    page = text_of(browse.get(f"{PAGE}?month=2026-02").text)
    assert "Saturday, 28 February 2026 Final" in page
    assert "The month is over" in page
    assert "Live" not in page


def test_a_client_without_a_row_of_the_day_says_so_and_links_to_its_last(
    browse: httpx.Client, engine: Engine
) -> None:
    put_rows(engine, "quay", [date(2026, 3, 16)])
    page = browse.get("/clients/quay").text
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


def test_an_inactive_client_keeps_its_page_under_a_banner(
    browse: httpx.Client, engine: Engine
) -> None:
    put_sync(engine, finished_at=datetime(2026, 3, 10, 6, 0, tzinfo=UTC))
    with engine.begin() as connection:
        connection.execute(update(clients).values(active=False))
    page = browse.get(PAGE).text
    assert "This client is inactive" in text_of(page)
    assert "Its last sync was on Tue 10 Mar 2026, 01:00 CDT." in text_of(page)
    assert "/refresh" not in page
    assert "/fill" not in page


def test_a_name_with_markup_is_text_and_nothing_is_inline(
    browse: httpx.Client, engine: Engine
) -> None:
    name = "<script>alert(1)</script>"
    with engine.begin() as connection:
        connection.execute(update(clients).values(display_name=name))
    put_sync(engine, error=f"harbor: {name}")
    for path in (PAGE, "/compare?c=harbor&c=quay", "/year", "/accuracy"):
        page = browse.get(path).text
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)" in page
        assert not re.search(r"<script(?![^>]*\bsrc=)", page)
        assert not re.search(r"<[^>]+\s(style|on\w+)=", page)


def test_what_is_known_names_syncs_with_their_calls_or_their_error(
    browse: httpx.Client, engine: Engine
) -> None:
    run = "0b0e7a9c-4d39-4f0e-9f3e-1b1f0f9c7a11"
    put_sync(engine, run_id=run, api_calls=1, seconds=0.4)
    page = browse.get(PAGE).text
    assert "Last sync Wed 18 Mar 2026, 15:00 CDT, 1 call, 0.4 s" in text_of(page)
    assert f'href="http://127.0.0.1:3000/runs/{run}"' in page

    put_sync(engine, error="Email Bison answered 503.", finished_at=NOW + timedelta(seconds=1))
    assert "15:00 CDT, failed: Email Bison answered 503." in text_of(browse.get(PAGE).text)


def test_the_last_positive_reply_is_named_with_its_way(
    browse: httpx.Client, engine: Engine
) -> None:
    assert "Last positive reply 18 Mar 2026, by sync" in text_of(browse.get(PAGE).text)
    put_reply(engine, NOW - timedelta(minutes=1), source="webhook")
    put_reply(engine, NOW - timedelta(hours=30), source="feed")
    page = text_of(browse.get(PAGE).text)
    assert "Last positive reply Wed 18 Mar 2026, 14:59 CDT, by webhook" in page
    assert "Tue 17 Mar 2026, 09:00 CDT, by Email Bison's event feed, counts on 17 Mar" in page


def test_the_api_key_is_told_of_and_never_shown(browse: httpx.Client, engine: Engine) -> None:
    assert "API key none of its own: the master key" in text_of(browse.get(PAGE).text)
    with engine.begin() as connection:
        connection.execute(
            insert(client_api_keys).values(
                workspace="harbor", encrypted_key=b"gAAAAsecret", verified_at=NOW, numbers=["77"]
            )
        )
    page = browse.get(PAGE).text
    assert "API key own, checked Wed 18 Mar 2026, 15:00 CDT" in text_of(page)
    assert "gAAAA" not in page


def test_targets_have_their_history_and_who_changed_them(
    browse: httpx.Client, engine: Engine
) -> None:
    put_target(engine, "harbor", 250, 3000, date(2025, 6, 1))
    put_target(engine, "harbor", 300, 4000, date(2026, 3, 1))
    with engine.begin() as connection:
        connection.execute(
            insert(target_changes).values(
                workspace="harbor",
                holds_from=date(2026, 3, 1),
                before=None,
                after={"monthly_kpi_target": 300, "monthly_sending_target": 4000},
                changed_by="ada",
                changed_at=NOW,
            )
        )
    page = text_of(browse.get(PAGE).text)
    assert "300 positive replies and 4,000 emails since March 2026" in page
    assert "from March 2026 300 4,000 June 2025 to February 2026 250 3,000" in page
    assert "edited March 2026: those of the months before → 300 positive replies" in page
    assert "take back…" in page
    past = text_of(browse.get(f"{PAGE}?month=2026-02").text)
    assert "250 positive replies and 3,000 emails since June 2025" in past


def test_open_problems_stand_with_since_when(browse: httpx.Client, engine: Engine) -> None:
    assert "Open problems none" in text_of(browse.get(PAGE).text)
    put_outcome(engine, "plausible", [{"workspace": "quay", "problem": "no positive reply"}])
    assert "Open problems none" in text_of(browse.get(PAGE).text)
    put_outcome(engine, "complete", [{"workspace": "harbor", "problem": "no row"}])
    assert "since Wed 18 Mar 2026, 15:00 CDT" in text_of(browse.get(PAGE).text)


def test_links_lead_to_the_partition_and_to_email_bison(dashboard_site: Site) -> None:
    instance = InstanceSetting("main", "https://mail.agency.example", None)
    settings = dashboard_site.settings.model_copy(update={"bison_instances": (instance,)})
    with browsing(create_app(replace(dashboard_site, settings=settings))) as browser:
        page = browser.get(PAGE).text
    partition = "assets/client_metrics?view=partitions&amp;partition=2026-03-18%7Charbor"
    assert f'href="http://127.0.0.1:3000/{partition}"' in page
    assert 'href="https://mail.agency.example"' in page


def test_the_picker_leads_to_other_months_without_a_script(browse: httpx.Client) -> None:
    page = browse.get(f"{PAGE}?month=2026-01").text
    for path in (
        f"{PAGE}?month=2025-12",
        f"{PAGE}?month=2026-02",
        PAGE,
    ):
        assert f'href="{path}"' in page
        assert browse.get(path).status_code == 200


def test_the_page_takes_at_most_six_queries(browse: httpx.Client, engine: Engine) -> None:
    browse.get(PAGE)
    with statements(engine) as executed:
        browse.get(PAGE)
    assert len(executed) <= 6


def test_a_live_page_gets_its_own_changes_and_no_others(
    dashboard_site: Site, engine: Engine
) -> None:
    look = LookBack(PAGE, TODAY, TODAY)

    def sent(changed: frozenset[str] | None, *, may_edit: bool = True) -> str:
        return changes(dashboard_site, "harbor", look, changed, may_edit=may_edit)

    assert sent(frozenset({"quay"})) == ""
    only_time = sent(frozenset())
    assert only_time.count(" id=") == 1
    assert 'id="badge"' in only_time
    with engine.begin() as connection:
        connection.execute(
            update(client_metrics)
            .where(client_metrics.c.metric_date == TODAY)
            .values(positive_replies_mtd=77)
        )
    part = sent(frozenset({"harbor"}))
    assert tiles(part)["positive_replies_mtd"] == "77"
    assert table_cells(part)[TODAY]["positive_replies_mtd"] == "77"
    # A browser drops a row that is in no table, unless a template holds it.
    assert f'<template><tr id="day-{TODAY}"' in part
    assert "/targets" in part
    assert "/targets" not in sent(None, may_edit=False)


def test_the_live_page_of_nobody_is_refused(browse: httpx.Client) -> None:
    assert browse.get("/clients/nobody/live").status_code == 404
    assert browse.get(f"{PAGE}/live?month=2026-02").status_code == 204


def facts(workspace: str, day: date) -> dict[str, Any]:
    counts = dict.fromkeys(("sent", "replied", "interested", "bounced", "unsubscribed"), 0)
    return {"workspace": workspace, "date": day, "as_of": NOW, **counts}


def put_sync(engine: Engine, **changed: Any) -> None:
    row = {
        "run_id": "a run without Dagster",
        "workspace": "harbor",
        "first_date": TODAY,
        "last_date": TODAY,
        "status": "error" if changed.get("error") else "ok",
        "error": None,
        "key_used": "master",
        "api_calls": 2,
        "seconds": 1.5,
        "finished_at": NOW,
        **changed,
    }
    with engine.begin() as connection:
        connection.execute(insert(sync_log).values(row))


def put_reply(engine: Engine, happened_at: datetime, source: str) -> None:
    with engine.begin() as connection:
        connection.execute(
            insert(webhook_events).values(
                instance="main",
                source=source,
                arrived_at=happened_at + timedelta(seconds=2),
                applied_at=happened_at + timedelta(seconds=3),
                idempotency_key=f"{happened_at}",
                workspace="harbor",
                metric="interested",
                happened_at=happened_at,
                business_date=happened_at.date(),
                status="applied",
            )
        )


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """The statements that an engine executes meanwhile."""
    executed: list[str] = []

    def note(_connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        executed.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield executed
    finally:
        event.remove(engine, "before_cursor_execute", note)
