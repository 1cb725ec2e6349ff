"""A client without an API key of its own, whose numbers come through the master key."""

import pytest

from kpi_pipeline_tests.agency import PLANS, SERIES, SWITCH, WHO_AM_I, Agency
from kpi_pipeline_tests.sync.variants.scenes import (
    GIVE_A_MASTER_KEY,
    IS_IT_UP,
    NOT_BELIEVED,
    Case,
    Right,
    Scene,
    Switch,
    assert_holds_alone,
    edited_to_other_id,
    fault,
    rows,
    variant,
)


def move_user(when: str, path: str, *, to_other: bool = True, **options: object) -> Switch:
    """The user switches workspaces in the vendor's own pages, at a call with the master key."""

    def switch(scene: Scene) -> None:
        to = scene.other_id if to_other else scene.own_id
        scene.bison.fault("move_user", path=path, key="master", when=when, to=to, **options)

    return switch


_LEAVE_IT = "Do not switch workspaces in Email Bison's own pages"


# The switch, a check, the series, two plans, and another check.
_ONE_READING = 6


def _master(
    name: str, switch: Switch, *said: str, struck: int = 1, calls: int | None = None
) -> Case:
    return Case(name, (switch,), said, whose="keyless", struck=struck, calls=calls)


ALONE = (
    Case("a switch takes two seconds", (variant(switch_seconds=2),), whose="keyless", slow=True),
    _master(
        "the user moves once, before the series",
        move_user("before", SERIES, times=1),
        calls=2 * _ONE_READING,
    ),
    _master(
        "the user moves once, after the series",
        move_user("after", SERIES, times=1),
        calls=2 * _ONE_READING,
    ),
    _master(
        "the user moves at each reading",
        move_user("after", SERIES),
        f"{WHO_AM_I} shows the master key in workspace {{other}} (",
        "after the reading of workspace {own}, in the last of 4 attempts",
        _LEAVE_IT,
        struck=4,
        calls=4 * _ONE_READING,
    ),
    # By the plans the key is where it should be, and only the check before the series shows it.
    Case(
        "the user moves right after the switch, and comes back",
        (
            move_user("after", SWITCH, times=1),
            move_user("before", WHO_AM_I, to_other=False, after=1, times=1),
            move_user("before", PLANS, to_other=False, times=1),
        ),
        whose="keyless",
        struck=3,
        calls=_ONE_READING + 1,
    ),
    # It moves once in this run, between the two plans: that is the same in every run.
    _master(
        "the user is restless",
        variant(restless_user=0.1),
        struck=0,
        calls=2 * _ONE_READING,
    ),
    _master(
        "the second check shows another workspace once",
        edited_to_other_id(WHO_AM_I, "/data/team/id", after=1, times=1),
        calls=2 * _ONE_READING,
    ),
    _master(
        "the second check cannot be believed",
        fault("cut", WHO_AM_I, after=1),
        f"{WHO_AM_I} answered with something other than JSON",
        NOT_BELIEVED,
    ),
    _master(
        "a switch is a failure with status 200",
        fault("success_false", SWITCH, value="false"),
        f"{SWITCH} answered with a failure: ",
        NOT_BELIEVED,
    ),
    _master(
        "a switch is forbidden",
        fault("status", SWITCH, status=403),
        f"{SWITCH} answered 403 ",
        GIVE_A_MASTER_KEY,
    ),
    _master(
        "the master key is rejected",
        fault("status", "", status=401, key="master"),
        "answered 401 (Unauthenticated)",
        GIVE_A_MASTER_KEY,
    ),
    _master(
        "a series through the master key is not answered",
        fault("reset", SERIES),
        f"{SERIES} got no answer at try 2 of 2: RemoteProtocolError",
        IS_IT_UP,
        struck=2,
    ),
    _master(
        "a series through the master key lacks a label",
        fault("edit", SERIES, pointer="/data/5", remove=True),
        "answered without 'Interested'",
        NOT_BELIEVED,
    ),
)


@pytest.mark.parametrize("case", rows(ALONE))
def test_alone_a_case_leaves_the_right_rows_or_those_that_were_there(
    case: Case, an_hour_later: Agency, right: Right
) -> None:
    assert_holds_alone(case, an_hour_later, right)
