"""The vendor's example answers and live ones, with invented values, are read right, each.

Members that the vendor documents, or that live instances were seen to send, are no news.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import date
from typing import Any, TypeVar

import httpx
import pytest

from kpi_pipeline.bison import (
    BisonClient,
    DayCounts,
    MalformedAnswer,
    PeriodStats,
    Webhook,
    Workspace,
    WorkspaceReader,
    WrongWorkspace,
)
from kpi_pipeline_tests.bison.support import (
    HARBOR,
    WORKSPACE_KEY,
    Script,
    answer,
    client_for,
    line,
    run,
)

T = TypeVar("T")
Fields = Mapping[tuple[str, str], int]

MAY = date(2025, 5, 3)
MADE, CHANGED = "2025-04-14T16:59:21.000000Z", "2025-05-18T12:53:32.000000Z"
SECRET = "Qv7" * 12

# The row of a workspace in the vendor's document, and what a live instance has in its place.
TEAM = {
    "id": 7,
    "name": "Blue Harbor",
    "personal_team": False,
    "main": False,
    "parent_id": 3,
    "total_monthly_email_verification_credits": 0,
    "remaining_monthly_email_verification_credits": 0,
    "remaining_email_verification_credits": 0,
    "total_email_verification_credits": 0,
    "sender_email_limit": 100000,
    "warmup_limit": 100000,
    "warmup_filter_phrase": None,
    "has_access_to_warmup": False,
    "has_access_to_healthcheck": False,
    "created_at": MADE,
    "updated_at": CHANGED,
}
WORKSPACE = {
    "id": 7,
    "name": "Blue Harbor",
    "personal_team": False,
    "main": False,
    "parent_id": 3,
    "warmup_filter_phrase": "calm-otter",
    "webhooks_secret_key": SECRET,
    "created_at": MADE,
    "updated_at": CHANGED,
}
USER = {
    "id": 4,
    "name": "Ann Example",
    "email": "ann@agency.example",
    "profile_photo_path": None,
    "profile_photo_url": "https://bison.example/photos/a",
    "created_at": MADE,
    "updated_at": CHANGED,
}


def client_reads(
    read: Callable[[BisonClient], Awaitable[T]], *answers: httpx.Response
) -> tuple[T, Fields]:
    """What is read from the answers, and which of their fields nobody knows."""

    async def work() -> tuple[T, Fields]:
        async with client_for(Script(*answers)) as client:
            return await read(client), dict(client.unknown_fields)

    return run(work())


def reads(
    read: Callable[[WorkspaceReader], Awaitable[T]], *answers: httpx.Response
) -> tuple[T, Fields]:
    async def work(client: BisonClient) -> T:
        return (await client.read_as(HARBOR, WORKSPACE_KEY, read)).value

    return client_reads(work, *answers)


async def confirmed(client: BisonClient) -> str:
    """Checks the key of HARBOR; the answer is the text of the error, or nothing."""
    try:
        await client.check_key(HARBOR, WORKSPACE_KEY)
    except (WrongWorkspace, MalformedAnswer) as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "acting",
    [
        {"team": TEAM},
        {"workspace": WORKSPACE},
        {"workspace": WORKSPACE, "team": TEAM},
        {"workspace": WORKSPACE, "team": None},
        {"workspace": {"id": "7"}},
    ],
)
def test_a_user_names_its_workspace_as_team_or_as_workspace(acting: dict[str, Any]) -> None:
    assert client_reads(confirmed, answer(USER | acting)) == ("", {})


@pytest.mark.parametrize("name", ["team", "workspace"])
def test_another_workspace_is_noticed_under_either_name(name: str) -> None:
    said, _ = client_reads(confirmed, answer(USER | {name: {"id": 8, "name": "Old Orchard"}}))
    assert "the key belongs to workspace 8 (Old Orchard), not to 7" in said


@pytest.mark.parametrize(
    ("acting", "reason"),
    [
        ({}, "answered with neither a `workspace` nor a `team`"),
        ({"team": None, "workspace": None}, "answered with neither a `workspace` nor a `team`"),
        ({"workspace": {"id": 7}, "team": {"id": 8}}, "with workspace 7 and with team 8"),
        ({"workspace": {"id": 8}, "team": {"id": 7}}, "with workspace 8 and with team 7"),
        ({"workspace": {"id": 7}, "team": {"name": "Blue Harbor"}}, "data.team.id: Field required"),
        ({"workspace": {"id": None}, "team": {"id": 7}}, "data.workspace.id: it is no id"),
        ({"workspace": []}, "another shape (data.workspace: "),
    ],
)
def test_a_user_without_one_workspace_is_an_error(acting: dict[str, Any], reason: str) -> None:
    said, _ = client_reads(confirmed, answer(USER | acting))
    assert reason in said
    assert said.endswith("report it to Email Bison if it stays.")


@pytest.mark.parametrize("more", [{}, {"meta": None}, {"links": {}, "meta": []}])
def test_workspaces_are_listed_with_the_members_of_either_time(more: dict[str, Any]) -> None:
    rows = [TEAM, WORKSPACE | {"id": 9, "name": "Old Orchard "}]
    found, fields = client_reads(BisonClient.list_workspaces, answer(rows, **more))
    assert found == [Workspace(7, "Blue Harbor"), Workspace(9, "Old Orchard")]
    assert fields == {}


def test_a_made_key_is_read_once() -> None:
    token = "6|" + "Nn9" * 16
    made = {
        "id": 6,
        "name": "New token",
        "plain_text_token": token,
        "token_hash": "f" * 64,
        "abilities": ["api-user"],
        "created_at": MADE,
        "updated_at": CHANGED,
    }

    async def make(client: BisonClient) -> str:
        key = await client.create_key(HARBOR, "New token")
        assert token not in repr(key)
        return key.get_secret_value()

    assert client_reads(make, answer(made)) == (token, {})


@pytest.mark.parametrize("write", [str, int])
def test_totals_are_texts_in_the_document_and_integers_live(
    write: Callable[[int], str | int],
) -> None:
    counts = {"emails_sent": 10, "total_leads_contacted": 9, "opened": 4, "bounced": 3}
    counts |= {"unique_opens_per_contact": 2, "unique_replies_per_contact": 5}
    counts |= {"unsubscribed": 1, "interested": 2}
    shares = ["opened", "unique_opens_per_contact", "unique_replies_per_contact", "bounced"]
    shares += ["unsubscribed", "interested"]
    body = {name: write(count) for name, count in counts.items()}
    body |= {f"{name}_percentage": "11.1" for name in shares}

    found, fields = reads(lambda reader: reader.stats(MAY, MAY), answer(body))

    assert found == PeriodStats(emails_sent=10, interested=2, bounced=3, unsubscribed=1, replied=5)
    assert fields == {}


def drawn(label: str, color: str, count: int) -> dict[str, Any]:
    return line(label, [(MAY, count)]) | {"color": color}


# In the vendor's order and colours.
SERIES = [
    drawn("Replied", "#f54842", 5),
    drawn("Total Opens", "#d366bb", 40),
    drawn("Sent", "#3B82F6", 990),
    drawn("Unsubscribed", "#fffff2", 1),
    drawn("Bounced", "#fffff1", 12),
    drawn("Interested", "#fffff3", 2),
    drawn("Unique Opens", "#90ee90", 30),
]
COUNTS = DayCounts(
    sent=990,
    replied=5,
    interested=2,
    bounced=12,
    unsubscribed=1,
    total_opens=40,
    unique_opens=30,
)


def test_the_seven_lines_of_a_series_are_read_by_their_labels() -> None:
    found, fields = reads(lambda reader: reader.daily_series(MAY, MAY), answer(SERIES))
    assert found.days == {MAY: COUNTS}
    assert fields == {}


def test_a_series_without_the_lines_of_opens_has_all_its_numbers() -> None:
    lines = [each for each in SERIES if "Opens" not in each["label"]]
    zeros = [each | {"dates": [["2025-05-03", 0]]} for each in lines]
    found, fields = reads(lambda reader: reader.daily_series(MAY, MAY), answer(zeros))
    assert found.days == {MAY: DayCounts(0, 0, 0, 0, 0, None, None)}
    assert (list(found.unlisted), fields) == ([], {})


def planned(number: int) -> dict[str, Any]:
    campaign = {"id": number, "name": "Fall", "status": 2, "type": "outbound", "created_at": MADE}
    return {"emails_being_sent": 100, "campaign_id": number, "campaign": campaign}


def test_a_plan_of_twenty_campaigns_is_read_from_both_of_its_pages() -> None:
    address = "https://bison.example/api/campaigns/sending-schedules"
    links = {"first": f"{address}?page=1", "last": f"{address}?page=2", "prev": None}
    shared = {"last_page": 2, "path": address, "per_page": 15, "total": 20}
    first = {"current_page": 1, "from": 1, "to": 15} | shared
    last = {"current_page": 2, "from": 16, "to": 20} | shared

    found, fields = reads(
        lambda reader: reader.sending_plan("today"),
        answer([planned(n) for n in range(1, 16)], links=links, meta=first),
        answer([planned(n) for n in range(16, 21)], links=links | {"next": None}, meta=last),
    )

    assert (found, fields) == (2000, {})


def test_webhooks_are_read_without_showing_their_addresses() -> None:
    row = {
        "id": 2,
        "name": "KPIs",
        "url": f"https://kpi.example/webhooks/{SECRET}",
        "events": ["lead_interested", "EMAIL_SENT"],
        "created_at": MADE,
        "updated_at": CHANGED,
    }
    found, fields = reads(lambda reader: reader.webhooks(), answer([row]))
    assert [(hook.id, hook.name, hook.events) for hook in found] == [
        (2, "KPIs", frozenset({"lead_interested", "email_sent"}))
    ]
    assert (type(found[0]), fields) == (Webhook, {})
    assert SECRET not in repr(found)


def test_a_switch_answers_with_a_name_alone() -> None:
    async def read(client: BisonClient) -> int:
        reading = await client.read_as(HARBOR, None, lambda it: it.sending_plan("today"))
        return reading.value

    who = answer(USER | {"workspace": WORKSPACE})
    found = client_reads(read, answer({"name": "Blue Harbor"}), who, answer([planned(1)]), who)
    assert found == (100, {})
