"""Which changes bring a workspace's webhooks into order, and what is wrong with them before."""

from collections.abc import Sequence

import pytest
from pydantic import SecretStr

from kpi_pipeline.bison import Webhook
from kpi_pipeline.sync.webhooks import (
    EVENTS,
    Change,
    Verb,
    find_problems,
    plan_registration,
    plan_removal,
)

SECRET = "invented-secret-of-an-instance"
OURS = f"https://kpi.agency.example/webhooks/bison/{SECRET}"
URL = SecretStr(OURS)
OTHERS = [
    "https://crm.example/in",
    f"https://crm.example/webhooks/bison/{SECRET}",
    f"https://kpi.agency.example:8443/webhooks/bison/{SECRET}",
    "https://kpi.agency.example/webhooks/slack/abc",
    "https://kpi.agency.example/",
    "https://[not-an-address/webhooks/bison/x",
    "",
]
DEAD = [
    "https://kpi.agency.example/webhooks/bison/the-secret-of-last-year",
    f"http://kpi.agency.example/webhooks/bison/{SECRET}",
    f"https://kpi.agency.example/webhooks/bison/{SECRET}/",
    "https://kpi.agency.example/webhooks/bison",
]


def hook(number: int, url: str = OURS, events: Sequence[str] = EVENTS) -> Webhook:
    return Webhook(number, f"webhook {number}", SecretStr(url), frozenset(events))


def actions(changes: Sequence[Change]) -> list[tuple[str, int | None]]:
    return [(str(it.verb), it.hook.id if it.hook else None) for it in changes]


def test_the_types_of_event_are_the_five_that_are_counted() -> None:
    assert sorted(EVENTS) == [
        "email_bounced",
        "email_sent",
        "lead_interested",
        "lead_replied",
        "lead_unsubscribed",
    ]


def test_a_workspace_without_a_webhook_of_ours_gets_one() -> None:
    hooks = [hook(number, url) for number, url in enumerate(OTHERS, start=1)]
    (change,) = plan_registration(hooks, URL)
    assert (change.verb, change.hook) == (Verb.CREATE, None)
    assert find_problems(hooks, URL) == ["missing: no webhook has the gateway's address"]


@pytest.mark.parametrize(
    "url",
    [
        OURS,
        OURS.replace("https://kpi.agency", "HTTPS://KPI.Agency"),
        OURS.replace(".example/", ".example:443/"),
        f"{OURS}?from=bison",
        f" {OURS} ",
    ],
)
def test_what_is_right_stays_however_its_address_is_written(url: str) -> None:
    hooks = [hook(3, url), hook(9, OTHERS[0], ["tag_attached"])]
    assert plan_registration(hooks, URL) == []
    assert find_problems(hooks, URL) == []


def test_types_of_event_that_lack_or_are_foreign_are_corrected_in_place() -> None:
    hooks = [hook(3, events=[*EVENTS[1:], "email_opened", "tag_attached"])]
    (change,) = plan_registration(hooks, URL)
    assert (change.verb, change.hook) == (Verb.CHANGE, hooks[0])
    assert change.what == (f"webhook 3: add {EVENTS[0]}, remove email_opened, remove tag_attached")
    assert find_problems(hooks, URL) == [
        f"missing: no webhook sends {EVENTS[0]}",
        "foreign events: webhook 3 sends email_opened, tag_attached, which is not counted",
    ]


def test_of_doubled_webhooks_the_one_that_is_right_stays() -> None:
    hooks = [hook(3, events=EVENTS[:1]), hook(7), hook(5)]
    assert actions(plan_registration(hooks, URL)) == [("delete", 3), ("delete", 7)]
    assert find_problems(hooks, URL) == ["doubled: webhooks 3, 5, 7 have the same address"]


def test_of_doubled_webhooks_none_of_which_is_right_the_oldest_is_corrected_first() -> None:
    hooks = [hook(7, events=EVENTS[2:]), hook(3, events=EVENTS[:2])]
    assert actions(plan_registration(hooks, URL)) == [("change", 3), ("delete", 7)]
    assert find_problems(hooks, URL) == ["doubled: webhooks 3, 7 have the same address"]


def test_dead_webhooks_are_named_and_deleted_only_on_request() -> None:
    hooks = [hook(3), *(hook(number, url) for number, url in enumerate(DEAD, start=4))]
    problems = find_problems(hooks, URL)
    assert [problem.split(" leads")[0] for problem in problems] == [
        f"dead: webhook {number}" for number in range(4, 8)
    ]
    assert plan_registration(hooks, URL) == []
    deleted = plan_registration(hooks, URL, delete_dead=True)
    assert actions(deleted) == [("delete", number) for number in range(4, 8)]
    assert actions(plan_registration(hooks[1:], URL, delete_dead=True))[0] == ("create", None)


def test_a_removal_deletes_all_of_our_address_and_nothing_else() -> None:
    urls = [OURS, *OTHERS, *DEAD, OURS]
    hooks = [hook(number, url) for number, url in enumerate(urls, start=1)]
    assert actions(plan_removal(hooks, URL)) == [("delete", 1), ("delete", len(urls))]
    assert plan_removal(hooks[1:-1], URL) == []


def test_no_change_and_no_problem_shows_an_address() -> None:
    hooks = [hook(1, events=EVENTS[:1]), hook(2), *(hook(9, url) for url in DEAD)]
    plans = [plan_registration(hooks, URL, delete_dead=True), plan_removal(hooks, URL)]
    shown = repr([*plans, find_problems(hooks, URL)])
    assert "agency" not in shown
    assert SECRET not in shown
