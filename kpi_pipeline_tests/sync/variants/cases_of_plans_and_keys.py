"""Cases of the calls besides a client's series: its sending plan, and whose its key is."""

from typing import Any

from kpi_pipeline_tests.agency import PLANS, WHO_AM_I
from kpi_pipeline_tests.bison_sandbox.running import TODAY
from kpi_pipeline_tests.sync.variants.cases import (
    GIVE_A_KEY,
    IS_IT_UP,
    NOT_BELIEVED,
    SET_INACTIVE,
    Case,
    Scene,
    Switch,
    delete_workspace,
    edited_to_other_id,
    fault,
    import_key_again,
)

_CORRECT_THE_CSV = "Correct the client's bison_workspace_id or its api_key in the CSV"
REPORT_IT = "The request does not fit this instance; report it"


def key_of_another(scene: Scene) -> None:
    """The victim's listed API key is one of another workspace."""
    body = {"workspace_id": scene.own_id, "to": scene.other_id}
    scene.bison.http.post("/sandbox/keys/move", json=body).raise_for_status()


def _plan(
    name: str, seen: str, kind: str, then: str = NOT_BELIEVED, struck: int = 1, **options: object
) -> Case:
    """A plan that fails costs its two columns, and no other number."""
    said = (f"the sending plan of {TODAY} is not known", f"sending-schedules {seen}", then)
    return Case(name, (fault(kind, PLANS, **options),), no_plan=said, struck=struck)


def _refused_plan(status: int, seen: str, then: str, struck: int = 1) -> Case:
    name = f"the plan is answered with {status}"
    return _plan(name, f"answered {status} ({seen}", "status", then, struck, status=status)


def _planned(what: str, **change: Any) -> Case:
    seen = "answered in another shape (data.0.emails_being_sent: "
    return _plan(
        f"a plan's emails are {what}", seen, "edit", pointer="/data/0/emails_being_sent", **change
    )


def _user(name: str, switch: Switch, *said: str, struck: int = 1) -> Case:
    seen = (f"{WHO_AM_I} {said[0]}", *said[1:]) if said else ()
    return Case(name, (import_key_again, switch), seen, struck=struck)


PLAN_CALLS = (
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
    _plan("the plan is a page of HTML", "answered with something other than JSON", "html"),
    _plan(
        "the plan's connection breaks half-way, again and again",
        "got no answer at try 2 of 2: RemoteProtocolError",
        "reset",
        then=IS_IT_UP,
        struck=2,
    ),
    _refused_plan(401, "Unauthenticated)", GIVE_A_KEY),
    _refused_plan(403, "This action is unauthorized", GIVE_A_KEY),
    _refused_plan(404, "record_not_found)", "This instance may not offer sending plans"),
    _refused_plan(422, "The given data was invalid", REPORT_IT),
    _refused_plan(503, "Service Unavailable) at try 2 of 2", IS_IT_UP, struck=2),
    _plan(
        "a plan's first page is followed by no second one",
        "answered in another shape (meta",
        "edit",
        pointer="/meta",
        value={"current_page": 1, "last_page": "many"},
    ),
    _plan(
        "a plan names a campaign twice",
        "answered in another shape (data: it lists a campaign twice)",
        "edit",
        pointer="/data/0",
        repeat=True,
    ),
    _plan(
        "the plan is refused for another reason than that there is none",
        "answered 400 (The campaign is locked)",
        "status",
        then=REPORT_IT,
        status=400,
        message="The campaign is locked.",
    ),
    _plan(
        "tomorrow's plan alone is not answered",
        "answered 500 (Server Error) at try 2 of 2",
        "status",
        then=IS_IT_UP,
        struck=2,
        after=1,
        status=500,
    ),
    Case(
        "tomorrow's plan is answered at the second try",
        (fault("reset", PLANS, after=1, times=1),),
        struck=1,
    ),
)

KEY_CHECKS = (
    _user(
        "a new key shows another workspace",
        edited_to_other_id(WHO_AM_I, "/data/workspace/id"),
        "shows that the key belongs to workspace {other}",
        "not to {own}",
        _CORRECT_THE_CSV,
    ),
    _user(
        "a new key shows no workspace",
        fault("edit", WHO_AM_I, pointer="/data/workspace", remove=True),
        "answered with neither a `workspace` nor a `team`",
        NOT_BELIEVED,
    ),
    _user(
        "a new key shows its workspace with the id as a text",
        lambda scene: scene.bison.fault(
            "edit",
            path=WHO_AM_I,
            workspace_id=scene.own_id,
            pointer="/data/workspace/id",
            value=str(scene.own_id),
        ),
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
            _CORRECT_THE_CSV,
        ),
    ),
    Case(
        "the workspace of a client with a key was deleted",
        (delete_workspace,),
        ("answered 404 (record_not_found)", SET_INACTIVE),
    ),
)
