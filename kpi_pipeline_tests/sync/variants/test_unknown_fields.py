"""Members of answers that no document names, in a whole sync."""

import logging

import pytest

from kpi_pipeline.db.tables import bison_unknown_fields
from kpi_pipeline_tests.sync.support import PLANS, SERIES, SWITCH, WHO_AM_I, Agency
from kpi_pipeline_tests.sync.variants.cases import Scene, given_anew
from kpi_pipeline_tests.sync.variants.checks import DATES, LATER, Right, assert_right


def test_fields_that_nobody_knows_change_no_number_and_are_told_of_once(
    an_hour_later: Agency, right: Right, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(an_hour_later, "keyed")
    numbers = right.at(scene.agency, DATES, scene.clients)
    given_anew(scene)
    scene.bison.variants(extra_fields=True, labels="one_unknown")

    with caplog.at_level(logging.WARNING, "kpi_pipeline"):
        scene.agency.synced(DATES, scene.clients)

    assert_right(scene.agency, numbers, scene.clients)
    (warning,) = caplog.messages
    noted = scene.agency.table(bison_unknown_fields)
    fields = {(row["call"], row["field"]) for row in noted}
    assert {
        (f"GET {WHO_AM_I}", "data.team.undocumented_flag"),
        (f"POST {SWITCH}", "data.undocumented_flag"),
        (f"GET {SERIES}", "data[].label 'Auto Replies'"),
        (f"GET {SERIES}", "data[].undocumented"),
        (f"GET {PLANS}", "undocumented"),
    } <= fields
    assert all(f"{call}: {field}" in warning for call, field in fields)
    assert {row["first_seen_at"] for row in noted} == {LATER}
    of_series = {row["answers"] for row in noted if row["call"] == f"GET {SERIES}"}
    assert of_series == {len(scene.clients)}

    caplog.clear()
    with caplog.at_level(logging.WARNING, "kpi_pipeline"):
        scene.agency.synced(DATES, scene.clients)

    assert caplog.messages == []
    again = scene.agency.table(bison_unknown_fields)
    assert {(row["call"], row["field"]) for row in again} == fields
    assert {row["answers"] for row in again if row["call"] == f"GET {SERIES}"} == {
        2 * len(scene.clients)
    }
