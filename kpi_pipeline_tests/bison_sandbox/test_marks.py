"""Leads that turn interested while the sandbox runs: what the API tells of them from then on."""

from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from kpi_pipeline_tests.bison_sandbox.running import AFTERNOON, TODAY, WORKSPACES, Bison

FIRST = TODAY - timedelta(days=59)


def replies(bison: Bison, key: str, **params: Any) -> list[dict[str, Any]]:
    """All pages of a workspace's replies."""
    rows: list[dict[str, Any]] = []
    while True:
        page = 1 + len(rows) // 15
        answer = bison.get("/api/replies", key=key, page=page, **params).json()
        rows += answer["data"]
        if page >= answer["meta"]["last_page"]:
            assert len(rows) == answer["meta"]["total"]
            return rows


def difference(before: dict[str, list[int]], after: dict[str, list[int]]) -> dict[str, list[int]]:
    """By how much each label's days have grown, for the labels that differ."""
    return {
        label: [b - a for a, b in zip(before[label], counts, strict=True)]
        for label, counts in after.items()
        if counts != before[label]
    }


def test_marked_leads_are_in_todays_series_and_stats_from_that_moment_on(bison: Bison) -> None:
    row = bison.with_key()[2]
    period = {"start_date": str(FIRST), "end_date": str(TODAY)}
    before = bison.series(FIRST, TODAY, key=row["api_key"])
    stats = bison.data(f"{WORKSPACES}/stats", key=row["api_key"], **period)
    bison.mark(row, leads=3, deliver=False)
    bison.mark(row, deliver=False)
    after = bison.series(FIRST, TODAY, key=row["api_key"])
    grown = [0] * 59 + [4]
    assert difference(before, after) == {"Interested": grown, "Replied": grown}
    shown = bison.data(f"{WORKSPACES}/stats", key=row["api_key"], **period)
    assert int(shown["interested"]) == int(stats["interested"]) + 4
    people = "unique_replies_per_contact"
    assert int(shown[people]) == int(stats[people]) + 4 <= sum(after["Replied"])
    # The moment before, nobody had marked them yet.
    bison.freeze("2026-03-18T14:59:59-05:00")
    assert sum(bison.series(TODAY, TODAY, key=row["api_key"])["Interested"]) < sum(
        after["Interested"][-1:]
    )


def test_marks_change_nothing_for_any_other_workspace(bison: Bison) -> None:
    marked, *others = bison.with_key()[:4]
    before = [bison.series(FIRST, TODAY, key=row["api_key"]) for row in others]
    bison.mark(marked, leads=50, deliver=False)
    assert [bison.series(FIRST, TODAY, key=row["api_key"]) for row in others] == before


def test_marks_stay_on_their_day_when_it_closes_and_is_revised(bison: Bison) -> None:
    row = bison.with_key()[0]
    moments = [AFTERNOON, "2026-03-19T09:00:00-05:00", "2026-03-25T09:00:00-05:00"]

    def counts() -> list[dict[str, list[int]]]:
        series = []
        for moment in moments:
            bison.freeze(moment)
            series.append(bison.series(TODAY, TODAY + timedelta(days=1), key=row["api_key"]))
        return series

    before = counts()
    bison.freeze(AFTERNOON)
    bison.mark(row, leads=7, deliver=False)
    for without, with_marks in zip(before, counts(), strict=True):
        assert difference(without, with_marks) == {"Interested": [7, 0], "Replied": [7, 0]}
    assert before[0]["Bounced"] != before[2]["Bounced"]


@pytest.mark.parametrize(
    ("by", "grown"),
    [("marking", [0, 0, 0, 0, 20]), ("reply", [0, 0, 0, 20, 0]), ("mail", None)],
)
def test_a_lead_counts_on_the_day_of_its_marking_its_reply_or_the_mail(
    bison: Bison, by: str, grown: list[int] | None
) -> None:
    # Ten minutes into a Friday: all mails that are marked now came on Thursday.
    bison.freeze("2026-03-20T00:10:00-05:00")
    bison.variants(leads_count_by=by)
    row, first, friday = bison.with_key()[0], date(2026, 3, 16), date(2026, 3, 20)
    before = bison.series(first, friday, key=row["api_key"])
    events = bison.mark(row, leads=20, deliver=False)
    found = difference(before, bison.series(first, friday, key=row["api_key"]))
    if grown is None:
        sent = [
            datetime.fromisoformat(event["data"]["scheduled_email"]["sent_at"])
            .astimezone(ZoneInfo("America/Chicago"))
            .date()
            for event in events
        ]
        grown = [sent.count(first + timedelta(days=offset)) for offset in range(5)]
        assert sum(count > 0 for count in grown) > 1
    assert found == {"Interested": grown, "Replied": [0, 0, 0, 20, 0]}


def test_the_day_of_a_mark_is_that_of_the_zone_that_bounds_the_workspaces_days(
    bison: Bison,
) -> None:
    row = bison.with_key()[0]
    tomorrow = TODAY + timedelta(days=1)
    bison.freeze("2026-03-18T20:00:00-05:00")
    bison.variants(day_zone="Asia/Tokyo")
    before = bison.series(TODAY, tomorrow, key=row["api_key"])
    bison.mark(row, leads=2, deliver=False)
    after = bison.series(TODAY, tomorrow, key=row["api_key"])
    assert difference(before, after)["Interested"] == [0, 2]


def test_the_replies_of_marked_leads_are_listed_among_the_others(bison: Bison) -> None:
    row = bison.with_key()[1]
    before = replies(bison, row["api_key"], status="interested")
    events = bison.mark(row, leads=20, deliver=False)
    bison.variants(leads_count_by="reply")
    series = bison.series(FIRST, TODAY, key=row["api_key"])
    interested = replies(bison, row["api_key"], status="interested", folder="inbox")
    every = replies(bison, row["api_key"])
    assert len(interested) == sum(series["Interested"]) == len(before) + 20
    assert len(every) == sum(series["Replied"])
    times = [reply["date_received"] for reply in every]
    assert times == sorted(times, reverse=True)
    assert [reply for reply in every if reply["interested"]] == interested
    listed = {reply["id"]: reply for reply in interested}
    for event in events:
        shown = event["data"]["reply"]
        # Some events leave out the uuid; lists call the subject by another name.
        assert listed[shown["id"]]["subject"] == shown.pop("email_subject")
        assert shown.items() <= listed[shown["id"]].items()
    assert len(listed) == len(interested)
    assert [reply for reply in interested if reply in before] == before


def test_the_reply_came_in_an_hour_or_more_before_the_marking(bison: Bison) -> None:
    events = bison.mark(bison.with_key()[1], leads=200, deliver=False)
    marked_at = datetime.fromisoformat(AFTERNOON)
    waited = [
        marked_at - datetime.fromisoformat(event["data"]["reply"]["date_received"])
        for event in events
    ]
    assert timedelta(hours=1) <= min(waited) < timedelta(hours=2)
    assert timedelta(hours=6) < max(waited) < timedelta(hours=10)


def test_marks_leave_the_list_with_their_day_and_never_the_series(bison: Bison) -> None:
    row = bison.with_key()[1]
    bison.mark(row, leads=30, deliver=False)
    for moment, listed in (("2026-05-16T12:00:00-05:00", 30), ("2026-05-17T12:00:00-05:00", 0)):
        bison.freeze(moment)
        rows = replies(bison, row["api_key"], status="interested")
        of_then = [each for each in rows if each["id"] > 10**15]
        assert len(of_then) == listed
        assert bison.series(TODAY, TODAY, key=row["api_key"])["Interested"][0] >= 30


def test_a_new_workspace_and_a_restored_one_have_their_marks(bison: Bison) -> None:
    workspace_id = bison.http.post("/sandbox/workspaces", json={"name": "Newcomer"}).json()["id"]
    newcomer = {"bison_workspace_id": str(workspace_id)}
    bison.switch(workspace_id)
    before = bison.series(TODAY, TODAY)["Interested"][0]
    bison.mark(newcomer, leads=5, deliver=False)
    bison.http.delete(f"/sandbox/workspaces/{workspace_id}")
    body = {"workspace_id": workspace_id}
    assert bison.http.post("/sandbox/mark-interested", json=body).status_code == 404
    bison.http.post(f"/sandbox/workspaces/{workspace_id}/restore")
    bison.switch(workspace_id)
    assert bison.series(TODAY, TODAY)["Interested"][0] == before + 5


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "workspace_id"),
        ({"workspace_id": "12"}, "workspace_id"),
        ({"leads": 0}, "leads"),
        ({"leads": 1_001}, "leads"),
        ({"leads": 1.5}, "leads"),
        ({"leads": True}, "leads"),
        ({"deliver": "false"}, "deliver"),
        ({"deliver": None}, "deliver"),
    ],
)
def test_a_wrong_marking_is_refused_by_field_and_marks_no_lead(
    bison: Bison, body: dict[str, object], field: str
) -> None:
    row = bison.with_key()[0]
    before = bison.series(TODAY, TODAY, key=row["api_key"])
    workspace = {} if field == "workspace_id" else {"workspace_id": int(row["bison_workspace_id"])}
    refused = bison.http.post("/sandbox/mark-interested", json=workspace | body)
    assert refused.status_code == 422
    assert list(refused.json()["data"]["errors"]) == [field]
    assert bison.series(TODAY, TODAY, key=row["api_key"]) == before


def test_an_unknown_workspace_has_no_leads_to_mark(bison: Bison) -> None:
    refused = bison.http.post("/sandbox/mark-interested", json={"workspace_id": 999_999})
    assert refused.status_code == 404
