"""What the page of one client says beside its numbers: syncs, targets, problems, links."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import httpx
import pytest
from sqlalchemy import Engine, insert, update

from kpi_pipeline.dashboard.app import create_app
from kpi_pipeline.dashboard.client import changes
from kpi_pipeline.dashboard.look_back import LookBack
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline.db.tables import (
    client_api_keys,
    client_metrics,
    clients,
    target_changes,
)
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.instances import InstanceSetting
from kpi_pipeline_tests.conftest import NOW
from kpi_pipeline_tests.dashboard.browsing import browsing
from kpi_pipeline_tests.dashboard.client_pages import (
    put_reply,
    put_sync,
    statements,
    table_cells,
    text_of,
    tiles,
)
from kpi_pipeline_tests.dashboard.rows import (
    TODAY,
    put_clients,
    put_outcome,
    put_rows,
    put_target,
)

PAGE = "/clients/harbor"


@pytest.fixture(autouse=True)
def _rows(engine: Engine) -> None:
    put_clients(engine, "harbor", "quay")
    put_rows(engine, "harbor", days_between(date(2026, 2, 1), TODAY))


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
