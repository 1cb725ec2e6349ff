import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from html import unescape
from typing import Any
from xml.etree.ElementTree import Element
from zoneinfo import ZoneInfo

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, event, select

from kpi_pipeline.dashboard.app import create_app
from kpi_pipeline.dashboard.columns import COLUMNS, SHOWN
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline.domain.columns import COUNTS, PERCENTAGES
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.conftest import NOW
from kpi_pipeline_tests.dashboard.browsing import browsing
from kpi_pipeline_tests.dashboard.pages import elements, text_of, valid
from kpi_pipeline_tests.dashboard.rows import (
    ONE_DAY,
    TODAY,
    put_clients,
    put_outcome,
    put_rows,
)

NUMBERS = (*COUNTS, *PERCENTAGES, "monthly_kpi_target", "monthly_sending_target")
PLANS = ("emails_scheduled_today", "emails_scheduled_tomorrow")
ALL = ",".join(COLUMNS)


@contextmanager
def statements_of(engine: Engine) -> Iterator[list[str]]:
    found: list[str] = []

    def note(*arguments: object) -> None:
        found.append(str(arguments[2]))

    event.listen(engine, "before_cursor_execute", note)
    yield found
    event.remove(engine, "before_cursor_execute", note)


def page(browse: httpx.Client, query: str = "") -> Element:
    answer = browse.get(f"/{query}")
    assert answer.status_code == 200, answer.text
    return valid(answer.text)


def rows_of(document: Element) -> dict[str, Element]:
    """The rows, or cards, by workspace, in their order."""
    named = [it for it in document.iter() if (it.get("id") or "").startswith("row-")]
    return {str(it.get("id")).removeprefix("row-"): it for it in named}


def numbers_of(row: Element) -> Iterator[tuple[str, str]]:
    for element in row.iter():
        if column := element.get("data-c"):
            yield column, text_of(element)


def badge_of(document: Element) -> str:
    return next(text_of(it) for it in document.iter() if it.get("id") == "badge")


def tiles_of(document: Element) -> list[str]:
    return [text_of(it) for it in elements(document, "div") if it.get("class") == "tile"]


def chips_of(document: Element) -> list[str]:
    chips = (it for it in elements(document, "a") if "chip" in (it.get("class") or "").split())
    return [text_of(it) for it in chips]


def number_in(text: str) -> Decimal | None:
    plain = text.replace(",", "").replace("\N{MINUS SIGN}", "-").removesuffix(" %")
    return None if plain == "–" else Decimal(plain)


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


def marks_of(row: Element) -> list[str]:
    return [
        unescape(str(it.get("title"))) for it in row.iter() if "wrong" in (it.get("class") or "")
    ]


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


def standings(engine: Engine) -> None:
    """A client of each standing, and two with problems."""
    put_clients(engine, "above", "behind-far", "behind-near", "nodata", "notarget", "on-track")
    for workspace, so_far, projection, target in (
        ("above", 70, 90, 60),
        ("on-track", 40, 60, 60),
        ("behind-near", 50, 55, 60),
        ("behind-far", 10, 20, 60),
        ("notarget", 10, 20, None),
    ):
        put_rows(
            engine,
            workspace,
            target=target,
            positive_replies_mtd=so_far,
            projection_positive_replies_eom=projection,
            mtd_leads_progress=None if target is None else round(so_far * 100 / target, 2),
            bounce_rate_mtd=so_far / 10,
        )


def test_problems_come_first_and_then_who_is_furthest_from_the_target(
    browse: httpx.Client, engine: Engine
) -> None:
    standings(engine)
    put_outcome(engine, "plausible", [{"workspace": "on-track", "problem": "5 % bounced"}])
    put_outcome(engine, "freshness", [{"workspace": "above", "problem": "old"}], severity="ERROR")
    document = page(browse)
    assert list(rows_of(document)) == [
        "above",
        "on-track",
        "behind-far",
        "behind-near",
        "notarget",
        "nodata",
    ]
    assert "5 % bounced" in text_of(rows_of(document)["on-track"])
    assert chips_of(document) == [
        "6 all",
        "1 above target",
        "1 on track",
        "2 behind",
        "1 no target",
        "1 no data",
        "2 need attention",
    ]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?status=behind", ["behind-far", "behind-near"]),
        ("?status=no-data", ["nodata"]),
        ("?status=problem", ["on-track"]),
        ("?q=BEHIND", ["behind-far", "behind-near"]),
        ("?bounce_min=4&bounce_max=5", ["on-track", "behind-near"]),
        ("?progress_min=100", ["above"]),
        ("?sort=name", ["above", "behind-far", "behind-near", "nodata", "notarget", "on-track"]),
        ("?sort=-bounce_rate_mtd&status=behind", ["behind-near", "behind-far"]),
        (
            "?sort=of_target",
            ["behind-far", "on-track", "behind-near", "above", "nodata", "notarget"],
        ),
    ],
)
def test_filters_and_order_stand_in_the_address(
    browse: httpx.Client, engine: Engine, query: str, found: list[str]
) -> None:
    standings(engine)
    put_outcome(engine, "plausible", [{"workspace": "on-track", "problem": "5 % bounced"}])
    document = page(browse, query)
    assert list(rows_of(document)) == found
    csv = next(it for it in elements(document, "a") if text_of(it) == "CSV").get("href") or ""
    if "sort=" not in query:
        assert sorted(csv.partition("workspace=")[2].split(",")) == sorted(found)


@pytest.mark.parametrize(
    "query",
    [
        "?status=sad",
        "?sort=colour",
        "?cols=secret",
        "?view=globe",
        "?page=0",
        "?bounce_min=many",
        "?bounce_min=nan",
        "?date=2026-13-01",
        "?date=2027-01-01",
    ],
)
def test_what_the_page_cannot_show_is_a_sentence_and_no_other_list(
    browse: httpx.Client, query: str
) -> None:
    answer = browse.get(f"/{query}")
    assert answer.status_code == 400
    valid(answer.text)


def test_a_sortable_heading_sorts_large_first_and_then_the_other_way(
    browse: httpx.Client, engine: Engine
) -> None:
    standings(engine)
    document = page(browse)
    for direction in ("descending", "ascending"):
        link = elements(heading_of(document, "Projected"), "a")[0]
        document = page(browse, str(link.get("href")).removeprefix("/"))
        assert heading_of(document, "Projected").get("aria-sort") == direction


def heading_of(document: Element, text: str) -> Element:
    return next(it for it in elements(document, "th") if text_of(it) == text)


def test_each_column_sorts_without_an_error(browse: httpx.Client, engine: Engine) -> None:
    standings(engine)
    for heading in elements(page(browse, f"?cols={ALL}"), "th"):
        for link in elements(heading, "a"):
            if (address := str(link.get("href"))).startswith("/?"):
                assert len(rows_of(page(browse, address.removeprefix("/")))) == 6


def test_a_hundred_clients_are_a_page_and_a_line_says_so(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, *(f"client-{number:03d}" for number in range(101)))
    first, second = page(browse, "?sort=name"), page(browse, "?sort=name&page=2")
    assert len(rows_of(first)) == 100
    assert list(rows_of(second)) == ["client-100"]
    assert "Clients 1 to 100 of 101; the totals are of all 101" in text_of(first)
    assert "Clients 101 to 101 of 101" in text_of(second)


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


def test_columns_are_chosen_in_a_form_and_stand_in_the_address(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, "acme")
    put_rows(engine, "acme")
    document = page(browse, "?cols=age&cols=bounced_mtd")
    assert [text_of(it) for it in elements(document, "th")][:3] == ["Client", "Bounces", "Age"]
    boxes = [it for it in elements(document, "input") if it.get("type") == "checkbox"]
    checked = {it.get("value") for it in boxes if "checked" in it.attrib}
    assert checked == {"age", "bounced_mtd"}
    assert {it.get("value") for it in boxes} == COLUMNS.keys() > set(SHOWN)


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
