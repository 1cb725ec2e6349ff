"""What editors do on the pages: each action says what it will do, does it, and shows the result."""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, select

from kpi_pipeline.dashboard.app import create_app
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline.db.alerts import Mute, read_mutes
from kpi_pipeline.db.dashboard.requests import Status, end_request, start_request
from kpi_pipeline.db.sync_log import SyncEntry, store_entry
from kpi_pipeline.db.tables import action_requests, clients
from kpi_pipeline_tests.conftest import NOW
from kpi_pipeline_tests.dashboard.browsing import browsing
from kpi_pipeline_tests.dashboard.rows import TODAY, put_clients, put_outcome, put_rows
from kpi_pipeline_tests.db.stocked import rows_of

YESTERDAY = TODAY - timedelta(days=1)


def token_of(page: httpx.Response) -> str:
    """The form's token on a page."""
    return page.text.split('name="form_token" value="')[1].split('"')[0]


def press(browse: httpx.Client, path: str, **fields: str) -> httpx.Response:
    """Open the page of an action, and send its form as a browser does."""
    page = browse.get(path)
    assert page.status_code == 200, page.text
    return browse.post(
        path.partition("?")[0],
        data={"form_token": token_of(page), **fields},
        headers={"Origin": str(browse.base_url).rstrip("/")},
    )


def requests_in(engine: Engine) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in rows_of(connection, action_requests)]


def entry(run_id: str, workspace: str, error: str | None = None) -> SyncEntry:
    return SyncEntry(run_id, workspace, YESTERDAY, TODAY, error, "own", 3, 1.0, 0.0, 0.5, NOW)


def test_a_refresh_says_what_it_will_do_and_becomes_a_request(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, "acme", "birch")

    page = browse.get("/refresh")
    assert "Tuesday, 17 March 2026 to Wednesday, 18 March 2026" in page.text
    assert "4 rows of 2 clients" in page.text
    assert "About 12 calls: 1 call for its daily numbers from 1 Feb 2026 on" in page.text
    done = press(browse, "/refresh")

    assert (done.status_code, done.headers["location"]) == (303, "/requests/1")
    (stored,) = requests_in(engine)
    assert (stored["kind"], stored["workspaces"], stored["status"]) == (
        "refresh",
        ["acme", "birch"],
        "waiting",
    )
    assert (stored["first_date"], stored["last_date"]) == (YESTERDAY, TODAY)
    assert stored["requested_by"] == "local"


def test_a_second_press_shows_the_request_that_is_under_way(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, "acme", "birch")
    press(browse, "/clients/acme/refresh")

    assert "This is under way already" in browse.get("/clients/acme/refresh").text
    assert press(browse, "/clients/acme/refresh").headers["location"] == "/requests/1"
    assert press(browse, "/clients/birch/refresh").headers["location"] == "/requests/2"
    with engine.begin() as connection:
        end_request(connection, 1, Status.SUCCEEDED, "Done.", NOW)
    assert press(browse, "/clients/acme/refresh").headers["location"] == "/requests/3"


def test_an_inactive_client_is_neither_refreshed_nor_filled(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, "acme", active=False)
    for path in ("/clients/acme/refresh", "/clients/acme/fill"):
        answer = browse.get(path)
        assert answer.status_code == 409
        assert "Acme is not active." in answer.text
    assert browse.get("/refresh").status_code == 409
    assert browse.get("/clients/nobody/refresh").status_code == 404


def test_the_progress_of_a_request_is_shown_until_it_ends(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, "acme", "birch", "cedar")
    press(browse, "/refresh")

    waiting = browse.get("/requests/1")
    assert "Waiting for Dagster" in waiting.text
    assert "every 1s" in waiting.text
    assert "Look again" in waiting.text
    with engine.begin() as connection:
        start_request(connection, 1, "a-run")
        store_entry(connection, entry("a-run", "acme"))
        store_entry(connection, entry("a-run", "birch", "birch: the key is rejected."))
    started = browse.get("/requests/1")
    assert "2 of 3 clients done." in started.text
    assert "<strong>Birch</strong>: the key is rejected." in started.text
    strip = browse.get("/requests/strip")
    assert "Refresh of 3 clients… 2 of 3" in strip.text
    assert "<html" not in strip.text
    with engine.begin() as connection:
        end_request(connection, 1, Status.FAILED, "1 of 3 clients failed. Why.", NOW)
    ended = browse.get("/requests/1")
    assert "1 of 3 clients failed. Why." in ended.text
    assert "every 1s" not in ended.text
    assert "Refresh of" not in browse.get("/requests/strip").text
    assert "Refresh of 3 clients" in browse.get("/requests").text


def test_a_request_that_nobody_takes_up_says_how_to_find_out_why(
    browse: httpx.Client, dashboard_site: Site, engine: Engine
) -> None:
    put_clients(engine, "acme")
    press(browse, "/refresh")
    later = replace(dashboard_site, now=lambda: NOW + timedelta(minutes=4))
    with browsing(create_app(later)) as patient:
        page = patient.get("/requests/1").text
    assert "Dagster has not taken this up for 4 min. `kpi status` says whether it runs." in page


def test_a_request_that_does_not_exist_is_a_page_with_a_sentence(browse: httpx.Client) -> None:
    for path in ("/requests/7", f"/requests/{10**30}"):
        answer = browse.get(path)
        assert answer.status_code == 404
        assert "There is no request" in answer.text


def test_a_gap_that_a_check_names_is_what_a_fill_proposes(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, "acme", "birch")
    missing = [
        {"workspace": "acme", "missing": "2026-03-02 to 2026-03-04", "days": 3},
        {"workspace": "acme", "missing": "2026-03-09", "days": 1},
        {"workspace": "birch", "missing": "2026-02-01", "days": 1},
    ]
    put_outcome(engine, "complete", missing)

    page = browse.get("/clients/acme/fill").text
    assert "Monday, 2 March 2026 to Monday, 9 March 2026, as the checks name them" in page
    assert "8 rows of 1 client" in page
    done = press(browse, "/clients/acme/fill", **{"from": "2026-03-02", "to": "2026-03-09"})

    assert done.headers["location"] == "/requests/1"
    (stored,) = requests_in(engine)
    assert (stored["kind"], stored["workspaces"]) == ("fill", ["acme"])
    assert (stored["first_date"], stored["last_date"]) == (date(2026, 3, 2), date(2026, 3, 9))


def test_without_a_gap_a_fill_proposes_the_last_week(browse: httpx.Client, engine: Engine) -> None:
    put_clients(engine, "acme")
    page = browse.get("/clients/acme/fill").text
    assert "No check names a missing day of this client." in page
    assert "Thursday, 12 March 2026 to Wednesday, 18 March 2026" in page


@pytest.mark.parametrize(
    ("first", "last", "sentence"),
    [
        ("2026-03-09", "2026-03-02", "The first day is after the last one."),
        ("2024-12-31", "2025-01-02", "Choose days from 1 Jan 2025 on"),
        ("2026-03-18", "2026-03-19", "Choose days until 18 Mar 2026"),
        ("2025-01-01", "2026-03-01", "Choose 366 days at most"),
        ("<b>", "2026-03-01", "Write both days as YYYY-MM-DD"),
        ("", "", "Write both days as YYYY-MM-DD"),
    ],
)
def test_days_that_cannot_be_filled_are_answered_with_a_sentence(
    browse: httpx.Client, engine: Engine, first: str, last: str, sentence: str
) -> None:
    put_clients(engine, "acme")
    shown = browse.get("/clients/acme/fill", params={"from": first, "to": last})
    assert sentence in shown.text
    assert "Fill these days" not in shown.text
    answer = press(browse, "/clients/acme/fill", **{"from": first, "to": last})
    assert (answer.status_code, sentence in answer.text) == (422, True)
    assert "<b>" not in answer.text
    assert requests_in(engine) == []


def test_a_check_is_muted_for_a_client_and_unmuted(browse: httpx.Client, engine: Engine) -> None:
    put_clients(engine, "acme")
    put_outcome(engine, "freshness", [{"workspace": "acme", "problem": "its numbers are old"}])
    page = browse.get("/clients/acme/mute").text
    assert '<option value="freshness" selected>the check freshness: fails' in page

    done = press(browse, "/clients/acme/mute", check="freshness", hours="48")

    assert done.headers["location"] == "/clients/acme/mute?check=freshness"
    with engine.connect() as connection:
        assert read_mutes(connection, NOW) == {
            "acme:freshness": Mute("acme:freshness", NOW + timedelta(days=2), NOW, "WARN")
        }
    shown = browse.get(done.headers["location"]).text
    assert "muted until Fri 20 Mar 2026, 15:00 CDT" in shown
    assert "muted until Fri 20 Mar 2026, 15:00 CDT" in browse.get("/clients/acme").text

    assert "It is muted until Fri 20 Mar" in browse.get("/clients/acme/unmute?check=freshness").text
    press(browse, "/clients/acme/unmute?check=freshness", check="freshness")
    with engine.connect() as connection:
        assert read_mutes(connection, NOW) == {}


@pytest.mark.parametrize(
    ("check", "hours"),
    [("freshness", "0"), ("freshness", "337"), ("freshness", "²"), ("freshness", ""), ("x", "1")],
)
def test_a_mute_is_of_a_known_check_for_an_hour_to_two_weeks(
    browse: httpx.Client, engine: Engine, check: str, hours: str
) -> None:
    put_clients(engine, "acme")
    assert press(browse, "/clients/acme/mute", check=check, hours=hours).status_code == 422
    with engine.connect() as connection:
        assert read_mutes(connection, NOW) == {}


def test_a_client_is_deactivated_and_activated_again_with_a_refresh(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, "acme")
    put_rows(engine, "acme", [YESTERDAY, TODAY])
    assert "its 2 stored rows stay" in browse.get("/clients/acme/deactivate").text

    done = press(browse, "/clients/acme/deactivate")

    assert done.headers["location"] == "/clients/acme"
    assert not is_active(engine)
    assert "is inactive already" in browse.get("/clients/acme/deactivate").text
    back = press(browse, "/clients/acme/reactivate")
    assert back.headers["location"] == "/requests/1"
    assert is_active(engine)
    assert [it["workspaces"] for it in requests_in(engine)] == [["acme"]]


def is_active(engine: Engine) -> bool:
    with engine.connect() as connection:
        return bool(connection.scalar(select(clients.c.active)))


def test_one_client_and_one_row_are_not_called_several(
    browse: httpx.Client, engine: Engine
) -> None:
    put_clients(engine, "acme")
    put_rows(engine, "acme")
    assert "The one active client." in browse.get("/refresh").text
    assert "its 1 stored row stays" in browse.get("/clients/acme/deactivate").text
