"""The list of workspaces, in each kind of paging: complete, or the registry adopts nothing."""

import asyncio
from typing import Any

import pytest

from kpi_pipeline.db.tables import client_api_keys, clients
from kpi_pipeline.sync.registry import RegistryReport, refresh_registry
from kpi_pipeline_tests.agency import Agency
from kpi_pipeline_tests.bison_sandbox.running import WORKSPACES
from kpi_pipeline_tests.sync.variants.cases import assert_no_secret

PAGING = ["page", "offer_cursor", "cursor", "whole", "changing"]
# How many answers come before the last one of a list of 26.
BEFORE_THE_LAST = {"page": 1, "offer_cursor": 1, "cursor": 1, "whole": 0, "changing": 2}


@pytest.fixture
def agency(before_any_sync: Agency) -> Agency:
    return before_any_sync


def renamed(agency: Agency) -> dict[str, str]:
    """New names in Email Bison for the first and the last client of its list."""
    by_id = sorted(agency.ids, key=agency.ids.__getitem__)
    names = {by_id[0]: "Ash & Ember", by_id[-1]: "Zinc Harbor"}
    for slug, name in names.items():
        agency.rename(slug, name)
    return names


def names(agency: Agency) -> dict[str, str]:
    return {row["workspace"]: row["name"] for row in agency.table(clients)}


def refresh(agency: Agency) -> RegistryReport:
    return asyncio.run(refresh_registry(agency.app))


@pytest.mark.parametrize("paging", PAGING)
def test_new_names_are_adopted_from_all_pages(agency: Agency, paging: str) -> None:
    before, new = names(agency), renamed(agency)
    agency.bison.variants(paging=paging)

    report = refresh(agency)

    assert report.unread == []
    assert report.listed == 26
    assert (report.unknown, report.vanished) == ([], [])
    assert len(report.renamed) == 2
    assert names(agency) == before | new


def test_names_with_raw_control_characters_are_adopted_on_one_line(agency: Agency) -> None:
    before, new = names(agency), renamed(agency)
    agency.bison.variants(control_characters=True)

    assert refresh(agency).listed == 26

    after = names(agency)
    assert all(name.isprintable() and name == name.strip() for name in after.values())
    letters = {slug: name.replace(" ", "") for slug, name in after.items()}
    assert letters == {slug: name.replace(" ", "") for slug, name in (before | new).items()}


@pytest.mark.parametrize("paging", PAGING)
def test_a_list_whose_last_answer_does_not_come_leaves_every_name_as_it_was(
    agency: Agency, paging: str
) -> None:
    agency.bison.variants(paging=paging)
    after = BEFORE_THE_LAST[paging]
    agency.bison.fault("status", path=WORKSPACES, after=after, status=502, html=True)

    assert_nothing_is_adopted(agency, "answered 502 at try 2 of 2")


@pytest.mark.parametrize(
    ("paging", "kind", "said"),
    [
        ("page", "cut", "answered with something other than JSON"),
        ("cursor", "empty", "answered with an empty body"),
        ("changing", "success_false", "answered with a failure: "),
        ("whole", "html", "answered with something other than JSON"),
    ],
)
def test_a_list_whose_last_answer_is_none_leaves_every_name_as_it_was(
    agency: Agency, paging: str, kind: str, said: str
) -> None:
    agency.bison.variants(paging=paging)
    agency.bison.fault(kind, path=WORKSPACES, after=BEFORE_THE_LAST[paging])

    assert_nothing_is_adopted(agency, said)


@pytest.mark.parametrize(
    ("paging", "change", "said"),
    [
        pytest.param(
            "page",
            {"pointer": "/meta/current_page", "value": 1},
            "answered with page 1, not 2",
            id="the first page once more",
        ),
        pytest.param(
            "page", {"pointer": "/data/3", "remove": True}, "listed 25 of 26 entries", id="a gap"
        ),
        pytest.param(
            "page", {"pointer": "/data/3/name", "value": None}, "(data.3.name: ", id="no name"
        ),
        pytest.param(
            "cursor",
            {"pointer": "/meta/next_cursor", "value": "bm93aGVyZQ"},
            "answered 422 (The selected cursor is invalid.",
            id="a cursor to nowhere",
        ),
        pytest.param(
            "whole", {"pointer": "/data", "value": None}, "another shape (data: ", id="no rows"
        ),
    ],
)
def test_a_list_that_is_not_whole_leaves_every_name_as_it_was(
    agency: Agency, paging: str, change: dict[str, Any], said: str
) -> None:
    agency.bison.variants(paging=paging)
    before_it = BEFORE_THE_LAST[paging]
    agency.bison.fault("edit", path=WORKSPACES, after=before_it, times=1, **change)

    assert_nothing_is_adopted(agency, said)


def assert_nothing_is_adopted(agency: Agency, said: str) -> None:
    renamed(agency)
    before = agency.table(clients), agency.table(client_api_keys)

    report = refresh(agency)

    (error,) = [*report.unread, *report.unanswered]
    assert (report.listed, report.renamed, report.vanished) == (0, [], [])
    assert error.startswith(f"instance main: GET {WORKSPACES} ")
    assert said in error
    assert_no_secret(agency, error)
    assert (agency.table(clients), agency.table(client_api_keys)) == before
    assert agency.bison.struck()[0] > 0
