"""The calls around the series: the sending plans after it, and whose key it is before it."""

from typing import Any

from kpi_pipeline_tests.sync.support import PLANS, WHO_AM_I
from kpi_pipeline_tests.sync.variants.cases import (
    CORRECT_THE_CSV,
    GIVE_A_KEY,
    IS_IT_UP,
    NOT_BELIEVED,
    SET_INACTIVE,
    Case,
    Switch,
    edited_to_other_id,
    edited_to_own_id,
    fault,
    given_anew,
)

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
    return Case(name, (given_anew, switch), seen, struck=struck)


CASES = (
    _planned("not told", remove=True),
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
    _plan("the plan is a failure told with 200", "answered with a failure: ", "success_false"),
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
        "whose a new key is, is a failure told with 200",
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
)
