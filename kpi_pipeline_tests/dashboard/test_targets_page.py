"""Targets are edited on the page from a month on, show in every row, and can be taken back."""

import re
from datetime import date, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, delete, update

from kpi_pipeline.db.day_zone import store_day_zone
from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.db.registry.targets import read_changes
from kpi_pipeline.db.tables import client_metrics, client_targets, kpi_projections
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline_tests.dashboard.rows import CHICAGO, TODAY, put_clients, put_target
from kpi_pipeline_tests.dashboard.test_actions import press
from kpi_pipeline_tests.db.stocked import rows_of, stock_facts

FEBRUARY, MARCH, APRIL = (date(2026, month, 1) for month in (2, 3, 4))
TARGETS = "/clients/acme/targets"
# When a row was computed, and by what.
_OF_COMPUTING = ("updated_at", "source")

Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def stocked(engine: Engine) -> None:
    """Two clients with rows since February, and a target from then on."""
    put_clients(engine, "acme", "birch")
    for workspace in ("acme", "birch"):
        put_target(engine, workspace, 40, 3000, FEBRUARY)
    with engine.begin() as connection:
        store_day_zone(connection, CHICAGO)
        for workspace in ("acme", "birch"):
            stock_facts(connection, workspace, date(2025, 12, 1), TODAY)
        update_rows(
            connection,
            ["acme", "birch"],
            since=FEBRUARY,
            zone=CHICAGO,
            source="sync",
            dates=days_between(FEBRUARY, TODAY),
        )


def rows(engine: Engine) -> Rows:
    """All rows, but for when and by what they were computed."""
    with engine.connect() as connection:
        return {
            table.name: [
                {name: value for name, value in row.items() if name not in _OF_COMPUTING}
                for row in rows_of(connection, table)
            ]
            for table in (kpi_projections, client_metrics, client_targets)
        }


def shown(engine: Engine, column: str = "monthly_kpi_target") -> dict[tuple[str, str], set[int]]:
    """The targets that the rows of each client and month show."""
    found: dict[tuple[str, str], set[int]] = {}
    for name in ("kpi_projections", "client_metrics"):
        for row in rows(engine)[name]:
            key = (row["workspace"], f"{row['metric_date']:%Y-%m}")
            found.setdefault(key, set()).add(row[column])
    return found


def changes(engine: Engine) -> list[tuple[str, date, Any, Any]]:
    with engine.connect() as connection:
        found = read_changes(connection, "acme")
    return [
        (
            it.changed_by,
            it.holds_from,
            it.before and (it.before.monthly_kpi_target, it.before.monthly_sending_target),
            it.after and (it.after.monthly_kpi_target, it.after.monthly_sending_target),
        )
        for it in found
    ]


def save(browse: httpx.Client, month: str, replies: str, emails: str = "3000") -> httpx.Response:
    return press(browse, TARGETS, month=month, replies=replies, emails=emails)


def test_the_targets_edited_on_the_page_show_in_every_row_of_the_month_and_can_be_taken_back(
    browse: httpx.Client, engine: Engine
) -> None:
    before = rows(engine)

    done = save(browse, "2026-03", "1,200", "9000")

    assert (done.status_code, done.headers["location"]) == (303, f"{TARGETS}?month=2026-03")
    assert done.elapsed < timedelta(seconds=1)
    assert shown(engine) == {
        ("acme", "2026-02"): {40},
        ("acme", "2026-03"): {1200},
        ("birch", "2026-02"): {40},
        ("birch", "2026-03"): {40},
    }
    assert shown(engine, "monthly_sending_target")["acme", "2026-03"] == {9000}
    for row in rows(engine)["client_metrics"]:
        if (row["workspace"], row["metric_date"]) == ("acme", TODAY):
            expected = 100 * row["positive_replies_mtd"] / 1200
            assert float(row["mtd_leads_progress"]) == pytest.approx(expected, abs=0.01)
    assert changes(engine) == [("local", MARCH, None, (1200, 9000))]
    page = browse.get(done.headers["location"]).text
    assert "In March 2026: 1,200 positive replies, 9,000 emails." in page
    assert f"{TARGETS}/1/undo" in page

    back = press(browse, f"{TARGETS}/1/undo")

    assert back.status_code == 303
    assert rows(engine) == before
    assert changes(engine) == [
        ("local", MARCH, (1200, 9000), None),
        ("local", MARCH, None, (1200, 9000)),
    ]
    assert "took a change back" in browse.get(TARGETS).text
    assert "/undo" not in browse.get(TARGETS).text


def test_a_month_with_targets_of_its_own_keeps_them(browse: httpx.Client, engine: Engine) -> None:
    put_target(engine, "acme", 77, None, MARCH)
    assert (
        "until March 2026, which has targets of its own"
        in browse.get(f"{TARGETS}?month=2026-02").text
    )
    save(browse, "2026-02", "50")
    assert shown(engine)["acme", "2026-02"] == {50}
    assert shown(engine)["acme", "2026-03"] == {77}


def test_blank_means_no_target(browse: httpx.Client, engine: Engine) -> None:
    save(browse, "2026-03", "", "")
    assert shown(engine)["acme", "2026-03"] == {None}
    assert changes(engine) == [("local", MARCH, None, (None, None))]
    assert "In March 2026: – positive replies, – emails." in browse.get(TARGETS).text


def test_a_change_is_taken_back_only_after_later_ones_of_its_month(
    browse: httpx.Client, engine: Engine
) -> None:
    save(browse, "2026-03", "50")
    save(browse, "2026-03", "60")
    save(browse, "2026-04", "70")

    page = browse.get(f"{TARGETS}/1/undo").text
    assert "The targets from March 2026 on were changed again later: take that back first." in page
    token = re.findall('name="form_token" value="([0-9a-f]+)"', browse.get(TARGETS).text)[0]
    refused = browse.post(f"{TARGETS}/1/undo", data={"form_token": token})
    assert refused.status_code == 409
    assert "take that back first" in refused.text

    press(browse, f"{TARGETS}/2/undo")
    assert shown(engine)["acme", "2026-03"] == {50}
    press(browse, f"{TARGETS}/1/undo")
    assert shown(engine)["acme", "2026-03"] == {40}
    for number, sentence in [(1, "is taken back already"), (4, "This took another change back")]:
        assert sentence in browse.get(f"{TARGETS}/{number}/undo").text
    assert browse.get(f"{TARGETS}/9/undo").status_code == 404


def test_a_change_that_others_overwrote_without_a_history_is_not_taken_back(
    browse: httpx.Client, engine: Engine
) -> None:
    save(browse, "2026-03", "50")
    table = client_targets.c
    for statement in (
        update(client_targets).where(table.holds_from == MARCH).values(monthly_kpi_target=51),
        delete(client_targets).where(table.holds_from == MARCH),
    ):
        with engine.begin() as connection:
            connection.execute(statement)
        refused = press(browse, f"{TARGETS}/1/undo")
        assert refused.status_code == 409
        assert "they were changed outside of this page" in refused.text


@pytest.mark.parametrize(
    ("month", "replies", "emails", "sentence"),
    [
        ("2026-13", "50", "", "Write the month as YYYY-MM"),
        ("", "50", "", "Write the month as YYYY-MM"),
        ("1999-12", "50", "", "Choose a month from January 2000 to March 2028."),
        ("2028-04", "50", "", "Choose a month from January 2000 to March 2028."),
        ("2026-03", "-5", "", "is no whole number from 0 to 2147483647. Blank means no target."),
        ("2026-03", "1.5", "", "is no whole number"),
        ("2026-03", "50", "many", "is no whole number"),
        ("2026-03", str(2**31), "", "is no whole number"),
        ("2026-03", "40", "3000", "These targets hold in March 2026 already."),
    ],
)
def test_what_cannot_be_a_target_is_answered_with_a_sentence_and_the_form_as_it_was(
    browse: httpx.Client, engine: Engine, month: str, replies: str, emails: str, sentence: str
) -> None:
    before = rows(engine)
    answer = save(browse, month, replies, emails)
    assert answer.status_code == 422
    assert sentence in answer.text
    assert f'value="{replies}"' in answer.text
    assert 'aria-invalid="true"' in answer.text
    assert (rows(engine), changes(engine)) == (before, [])


def test_of_two_edits_at_once_the_history_has_both(browse: httpx.Client, engine: Engine) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda it: save(browse, "2026-03", it), ("50", "60")))
    assert [it.status_code for it in answers] == [303, 303]
    later, earlier = changes(engine)
    assert earlier[2] is None
    assert later[2] == earlier[3]
    assert shown(engine)["acme", "2026-03"] == {later[3][0]}
