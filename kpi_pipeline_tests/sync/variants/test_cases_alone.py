"""Cases that need a sync of their own: the whole instance, the master key, or variants of answers.

What public material leaves open about Email Bison is a variant. Each gives the right rows, or an
error.
"""

import pytest

from kpi_pipeline.db.tables import raw_bison_stats
from kpi_pipeline_tests.agency import PLANS, SERIES, SWITCH, WHO_AM_I, Agency
from kpi_pipeline_tests.expected import Row
from kpi_pipeline_tests.sync.variants.cases import (
    DATES,
    GIVE_A_KEY,
    GIVE_A_MASTER_KEY,
    IS_IT_UP,
    NOT_BELIEVED,
    SET_INACTIVE,
    Case,
    Scene,
    StruckSync,
    Switch,
    assert_right,
    delete_workspace,
    edited_to_other_id,
    fault,
    fault_of_all,
    of_each,
    right_rows,
    right_rows_later,
    three_clients,
    variant,
    without_plan,
)

_SHORT_TIMEOUT = {"bison_timeout_seconds": 0.5}


def _no_answer(name: str, kind: str, seen: str, **options: object) -> Case:
    said = (f"got no answer at try 2 of 2: {seen}", IS_IT_UP)
    return Case(name, (fault(kind, **options),), said, struck=2, settings=_SHORT_TIMEOUT)


ANSWERS = (
    _no_answer("the answer comes too late", "slow", "time-out (0.5 s)", seconds=20),
    _no_answer("the answer stops half-way", "stall", "time-out (0.5 s)"),
    _no_answer("the connection breaks half-way, again and again", "reset", "RemoteProtocolError"),
    Case(
        "the whole instance asks once to wait",
        (fault_of_all("status", status=429, retry_after=1, times=1),),
        struck=1,
    ),
    Case(
        "the whole instance answers 502",
        (fault_of_all("status", status=502, html=True),),
        ("answered 502 at try 2 of 2", IS_IT_UP),
        whose="all",
        struck=6,
    ),
)


def revoke_key(scene: Scene) -> None:
    """Revoke the victim's API key."""
    scene.agency.revoke(scene.victim)


_ONLY_SOME = "under some of the labels only"


def _right(name: str, switch: Switch) -> Case:
    return Case(name, (switch,))


def _in_zone(name: str, day_zone: str) -> Case:
    # The pipeline does not know which zone it is.
    settings = {"bison_timezone": None}
    return Case(name, (variant(day_zone=day_zone),), days_move=True, settings=settings)


VARIANTS = (
    _right("every count is a text", variant(counts="text")),
    _right("every count is an integer", variant(counts="integers")),
    _right("a day without an event stands under no label", variant(empty_days="omitted")),
    Case(
        "each label leaves out its own days of zero",
        (variant(empty_days="omitted_by_label"),),
        error=("line-area-chart-stats answered with", _ONLY_SOME, NOT_BELIEVED),
        whose="all",
    ),
    _right("the labels come in another order", variant(labels="shuffled")),
    Case(
        "a label is missing",
        (variant(labels="one_missing"),),
        error=("answered without 'Interested'", NOT_BELIEVED),
        whose="all",
    ),
    _right("a label that nobody knows comes first", variant(labels="one_unknown")),
    _in_zone("days are bounded in UTC", "UTC"),
    _in_zone("days are bounded in US Eastern", "America/New_York"),
    _in_zone("days are bounded in each workspace's own zone", "workspace"),
    Case(
        "a revoked key gets the wrapping of other errors",
        (variant(wrapped_401=True), revoke_key),
        error=("answered 401 (Unauthenticated)", GIVE_A_KEY),
    ),
    Case(
        "a revoked key gets no such wrapping",
        (variant(wrapped_401=False), revoke_key),
        error=("answered 401 (Unauthenticated)", GIVE_A_KEY),
    ),
    Case(
        "one 429 with Retry-After passes",
        (variant(retry_after=True), fault("status", status=429, times=1)),
        struck=1,
    ),
    _right("names hold raw control characters", variant(control_characters=True)),
    _right("plans have pages", variant(campaigns="many")),
    _right("plans have pages by cursor", variant(campaigns="many", paging="cursor")),
    _right("plans change their way of paging", variant(campaigns="many", paging="changing")),
    _right("plans come whole", variant(campaigns="many", paging="whole")),
    _right("every object holds fields that nobody knows", variant(extra_fields=True)),
)


def move_user(when: str, path: str, *, to_other: bool = True, **options: object) -> Switch:
    """The user switches workspaces in the vendor's own pages, at a call with the master key."""

    def switch(scene: Scene) -> None:
        to = scene.other_id if to_other else scene.own_id
        scene.bison.fault("move_user", path=path, key="master", when=when, to=to, **options)

    return switch


def import_keys_again(scene: Scene) -> None:
    """Import the API keys of both clients again, so no key is verified yet."""
    for slug in (scene.victim, scene.other):
        scene.agency.give_key(slug, str(scene.agency.key(slug)))


_LEAVE_IT = "Do not switch workspaces in Email Bison's own pages"
# The switch, a check, the series, two plans, and another check.
_ONE_READING = 6


def _master(
    name: str, switch: Switch, *said: str, struck: int = 1, calls: int | None = None
) -> Case:
    return Case(name, (switch,), said, whose="keyless", struck=struck, calls=calls)


THROUGH_THE_MASTER_KEY = (
    Case("a user has a team", (variant(user_member="team"),), whose="keyless"),
    Case("a user has a workspace and a team", (variant(user_member="both"),), whose="keyless"),
    Case(
        "a user has a workspace and another team",
        (variant(user_member="different"), import_keys_again),
        (f"{WHO_AM_I} answered with workspace ", " and with team ", NOT_BELIEVED),
        whose="all",
    ),
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
        edited_to_other_id(WHO_AM_I, "/data/workspace/id", after=1, times=1),
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
    Case(
        "the workspace of a client without a key was deleted",
        (delete_workspace,),
        ("switch-workspace answered 404 (record_not_found)", SET_INACTIVE),
        whose="keyless",
    ),
)

CASES = (*ANSWERS, *VARIANTS, *THROUGH_THE_MASTER_KEY)


@of_each(CASES)
def test_alone_a_case_leaves_the_right_rows_or_those_that_were_there(
    case: Case, an_hour_later: Agency
) -> None:
    assert_holds_alone(case, an_hour_later)


@of_each(case for case in CASES if case.error)
@pytest.mark.long
def test_alone_a_failure_in_a_first_sync_leaves_no_row_and_no_zero(
    case: Case, before_any_sync: Agency
) -> None:
    assert_holds_alone(case, before_any_sync)


def test_a_series_without_lines_of_opens_has_all_numbers_and_no_opens(
    an_hour_later: Agency,
) -> None:
    agency, clients = an_hour_later, three_clients(an_hour_later)
    right = right_rows_later(agency, clients)
    opens: Row = {"total_opens": None, "unique_opens": None}
    facts = {key: row | opens for key, row in right[raw_bison_stats.name].items()}
    agency.bison.variants(labels="no_opens")

    agency.synced(DATES, clients)

    assert_right(agency, {**right, raw_bison_stats.name: facts}, clients)


@pytest.mark.parametrize("page", [1, 2])
def test_a_plan_whose_page_fails_is_no_plan_and_no_part_of_one(
    an_hour_later: Agency, page: int
) -> None:
    agency, clients = an_hour_later, three_clients(an_hour_later)
    victim, *_ = clients
    right = without_plan(right_rows_later(agency, clients), victim)
    agency.bison.variants(campaigns="many")
    fault("status", PLANS, status=500, after=page - 1)(Scene(agency, *clients[:2]))

    agency.synced(DATES, clients)

    assert_right(agency, right, clients)


def assert_holds_alone(case: Case, agency: Agency) -> None:
    """The case's switches, in a sync of three clients, end as the case says."""
    first, other, keyless = clients = three_clients(agency)
    victim = keyless if case.whose == "keyless" else first
    sync = StruckSync(agency, {victim: case}, other, clients)
    if case.days_move:
        moved = right_rows(agency, clients)
        assert moved != sync.right
        sync.right = moved
    sync.assert_holds(case)
    sync.assert_others_are_right()
