"""The overview: which clients it lists, in which order, with which columns."""

import httpx
import pytest
from sqlalchemy import Engine

from kpi_pipeline.dashboard.overview.columns import COLUMNS, SHOWN
from kpi_pipeline_tests.dashboard.overview_page import chips_of, heading_of, page, rows_of
from kpi_pipeline_tests.dashboard.pages import elements, text_of, valid
from kpi_pipeline_tests.dashboard.rows import (
    put_clients,
    put_outcome,
    put_rows,
)

ALL = ",".join(COLUMNS)


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
