"""What public material leaves open: each variant gives the right rows, or an error."""

import logging

import pytest

from kpi_pipeline.db.tables import bison_unknown_fields
from kpi_pipeline_tests.agency import PLANS, SERIES, SWITCH, WHO_AM_I, Agency
from kpi_pipeline_tests.sync.variants.scenes import (
    DATES,
    GIVE_A_KEY,
    LATER,
    NOT_BELIEVED,
    Case,
    Right,
    Scene,
    Switch,
    assert_holds_alone,
    assert_right,
    fault,
    import_key_again,
    rows,
    three_clients,
    variant,
)


def revoke_key(scene: Scene) -> None:
    """Revoke the victim's API key."""
    scene.agency.revoke(scene.victim)


_ONLY_SOME = "under some of the seven labels only"


def _right(name: str, switch: Switch) -> Case:
    return Case(name, (switch,))


def _in_zone(name: str, day_zone: str) -> Case:
    # The pipeline does not know which zone it is.
    settings = {"bison_timezone": None}
    return Case(name, (variant(day_zone=day_zone),), days_move=True, settings=settings)


ALONE = (
    _right("every count is a text", variant(counts="text")),
    _right("every count is an integer", variant(counts="integers")),
    _right("a day without an event stands under no label", variant(empty_days="omitted")),
    Case(
        "each label leaves out its own days of zero",
        (variant(empty_days="omitted_by_label"),),
        said=("line-area-chart-stats answered with", _ONLY_SOME, NOT_BELIEVED),
        whose="all",
    ),
    _right("the labels come in another order", variant(labels="shuffled")),
    Case(
        "a label is missing",
        (variant(labels="one_missing"),),
        said=("answered without 'Interested'", NOT_BELIEVED),
        whose="all",
    ),
    _right("a label that nobody knows comes first", variant(labels="one_unknown")),
    _in_zone("days are bounded in UTC", "UTC"),
    _in_zone("days are bounded in US Eastern", "America/New_York"),
    _in_zone("days are bounded in each workspace's own zone", "workspace"),
    Case(
        "a revoked key gets the wrapping of other errors",
        (variant(wrapped_401=True), revoke_key),
        said=("answered 401 (Unauthenticated)", GIVE_A_KEY),
    ),
    Case(
        "a revoked key gets no such wrapping",
        (variant(wrapped_401=False), revoke_key),
        said=("answered 401 (Unauthenticated)", GIVE_A_KEY),
    ),
    Case(
        "one 429 with Retry-After passes",
        (variant(retry_after=True), fault("status", status=429, times=1)),
        struck=1,
    ),
    _right("names hold raw control characters", variant(control_characters=True)),
    _right("every object holds fields that nobody knows", variant(extra_fields=True)),
)


@pytest.mark.parametrize("case", rows(ALONE))
def test_alone_a_case_leaves_the_right_rows_or_those_that_were_there(
    case: Case, an_hour_later: Agency, right: Right
) -> None:
    assert_holds_alone(case, an_hour_later, right)


@pytest.mark.parametrize("case", rows(case for case in ALONE if case.said))
@pytest.mark.long
def test_alone_a_failure_in_a_first_night_leaves_no_row_and_no_zero(
    case: Case, first_night: Agency, right: Right
) -> None:
    assert_holds_alone(case, first_night, right)


def test_unknown_fields_change_no_number_and_are_reported_once(
    an_hour_later: Agency, right: Right, caplog: pytest.LogCaptureFixture
) -> None:
    agency, clients = an_hour_later, three_clients(an_hour_later)
    numbers = right.at(agency, clients)
    import_key_again(Scene(agency, *clients[:2]))
    agency.bison.variants(extra_fields=True, labels="one_unknown")

    with caplog.at_level(logging.WARNING, "kpi_pipeline"):
        agency.synced(DATES, clients)

    assert_right(agency, numbers, clients)
    (warning,) = caplog.messages
    counted = agency.table(bison_unknown_fields)
    fields = {(row["call"], row["field"]) for row in counted}
    assert {
        (f"GET {WHO_AM_I}", "data.team.undocumented_flag"),
        (f"POST {SWITCH}", "data.undocumented_flag"),
        (f"GET {SERIES}", "data[].label 'Auto Replies'"),
        (f"GET {SERIES}", "data[].undocumented"),
        (f"GET {PLANS}", "undocumented"),
    } <= fields
    assert all(f"{call}: {field}" in warning for call, field in fields)
    assert {row["first_seen_at"] for row in counted} == {LATER}
    of_series = {row["answers"] for row in counted if row["call"] == f"GET {SERIES}"}
    assert of_series == {len(clients)}

    caplog.clear()
    with caplog.at_level(logging.WARNING, "kpi_pipeline"):
        agency.synced(DATES, clients)

    assert caplog.messages == []
    again = agency.table(bison_unknown_fields)
    assert {(row["call"], row["field"]) for row in again} == fields
    of_series = {row["answers"] for row in again if row["call"] == f"GET {SERIES}"}
    assert of_series == {2 * len(clients)}
