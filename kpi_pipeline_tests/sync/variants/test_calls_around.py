"""The calls around the series: sending plans, and the check whose API key it is."""

from typing import Any

import pytest

from kpi_pipeline_tests.agency import PLANS, WHO_AM_I, Agency
from kpi_pipeline_tests.sync.variants.scenes import (
    CORRECT_THE_CSV,
    GIVE_A_KEY,
    IS_IT_UP,
    NOT_BELIEVED,
    SET_INACTIVE,
    Case,
    Nights,
    Right,
    Scene,
    Switch,
    assert_holds_alone,
    delete_workspace,
    edited_to_other_id,
    fault,
    import_key_again,
    rows,
)


def edited_to_own_id(path: str, pointer: str) -> Switch:
    """The victim's workspace id is in an answer as a text."""
    return lambda scene: fault("edit", path, pointer=pointer, value=str(scene.own_id))(scene)


def key_of_another(scene: Scene) -> None:
    """The victim's listed API key is one of another workspace."""
    body = {"workspace_id": scene.own_id, "to": scene.other_id}
    scene.bison.http.post("/sandbox/keys/move", json=body).raise_for_status()


_TEAM = "/data/team"


def _plan(
    name: str,
    seen: str,
    kind: str,
    *,
    next_step: str = NOT_BELIEVED,
    struck: int = 1,
    **options: object,
) -> Case:
    return Case(
        name,
        (fault(kind, PLANS, **options),),
        (f"sending-schedules {seen}", next_step),
        struck=struck,
    )


def _planned(what: str, **change: Any) -> Case:
    seen = "answered in another shape (data.0.emails_being_sent: "
    return _plan(
        f"a plan's emails are {what}", seen, "edit", pointer="/data/0/emails_being_sent", **change
    )


def _user(name: str, switch: Switch, *said: str, struck: int = 1) -> Case:
    seen = (f"{WHO_AM_I} {said[0]}", *said[1:]) if said else ()
    return Case(name, (import_key_again, switch), seen, struck=struck)


CASES = (
    _planned("missing", remove=True),
    _planned("negative", value=-5),
    _planned("null", value=None),
    _plan(
        "tomorrow's plan alone cannot be believed",
        "answered in another shape (data: ",
        "edit",
        after=1,
        pointer="/data",
        value="none",
    ),
    _plan("the plan is a failure with status 200", "answered with a failure: ", "success_false"),
    _plan("the plan is empty", "answered with an empty body", "empty"),
    _plan(
        "the plan is refused for another reason than that there is none",
        "answered 400 (The campaign is locked)",
        "status",
        next_step="The request does not fit this instance; report it",
        status=400,
        message="The campaign is locked.",
    ),
    _plan(
        "tomorrow's plan alone is not answered",
        "answered 500 (Server Error) at try 2 of 2",
        "status",
        next_step=IS_IT_UP,
        struck=2,
        after=1,
        status=500,
    ),
    Case(
        "tomorrow's plan is answered at the second try",
        (fault("reset", PLANS, after=1, times=1),),
        struck=1,
    ),
    _user(
        "a new key shows another workspace",
        edited_to_other_id(WHO_AM_I, f"{_TEAM}/id"),
        "shows that the key belongs to workspace {other}",
        "not to {own}",
        CORRECT_THE_CSV,
    ),
    _user(
        "a new key shows no workspace",
        fault("edit", WHO_AM_I, pointer=_TEAM, remove=True),
        "answered in another shape (data.team: Field required)",
        NOT_BELIEVED,
    ),
    _user(
        "a new key shows its workspace with the id as a text",
        edited_to_own_id(WHO_AM_I, f"{_TEAM}/id"),
    ),
    _user(
        "whose a new key is, is a failure with status 200",
        fault("success_false", WHO_AM_I, value="false"),
        "answered with a failure: ",
        NOT_BELIEVED,
    ),
    _user(
        "whose a new key is, is a page of HTML",
        fault("html", WHO_AM_I),
        "answered with something other than JSON",
        NOT_BELIEVED,
    ),
    _user(
        "a new key is forbidden", fault("status", WHO_AM_I, status=403), "answered 403 ", GIVE_A_KEY
    ),
    _user(
        "a new key's workspace is gone",
        fault("status", WHO_AM_I, status=404),
        "answered 404 ",
        SET_INACTIVE,
    ),
    _user(
        "whose a new key is, is not answered",
        fault("status", WHO_AM_I, status=503, html=True),
        "answered 503 at try 2 of 2",
        IS_IT_UP,
        struck=2,
    ),
    _user(
        "whose a new key is, is answered at the second try",
        fault("status", WHO_AM_I, status=503, times=1),
    ),
    Case(
        "a new key was copied from another workspace",
        (import_key_again, key_of_another),
        (
            f"{WHO_AM_I} shows that the key belongs to workspace {{other}} (",
            "), not to {own}",
            CORRECT_THE_CSV,
        ),
    ),
    Case(
        "the workspace of a client with a key was deleted",
        (delete_workspace,),
        ("answered 404 (record_not_found)", SET_INACTIVE),
    ),
)

ALONE = (
    Case(
        "the workspace of a client without a key was deleted",
        (delete_workspace,),
        ("switch-workspace answered 404 (record_not_found)", SET_INACTIVE),
        whose="keyless",
    ),
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


@pytest.mark.parametrize("case", rows(CASES))
def test_a_client_keeps_its_rows_or_has_the_right_ones(case: Case, nights: Nights) -> None:
    nights.assert_holds(case)
    assert all(nights.rows_of(case).values())


def test_every_other_client_of_these_nights_has_the_right_rows(nights: Nights) -> None:
    nights.assert_others_are_right()


@pytest.mark.parametrize("case", rows(case for case in CASES if case.said))
@pytest.mark.long
def test_a_failure_in_a_clients_first_night_leaves_no_row_and_no_zero(
    case: Case, first_nights: Nights
) -> None:
    first_nights.assert_holds(case)
    assert not any(first_nights.rows_of(case).values())


@pytest.mark.long
def test_every_other_client_of_these_first_nights_has_the_right_rows(first_nights: Nights) -> None:
    first_nights.assert_others_are_right()
