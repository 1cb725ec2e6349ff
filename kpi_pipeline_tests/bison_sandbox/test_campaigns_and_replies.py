from datetime import date, datetime, timedelta
from typing import Any

import pytest

from kpi_pipeline_tests.bison_sandbox.running import TODAY, Bison

SCHEDULES = "/api/campaigns/sending-schedules"


def planned(rows: list[dict[str, Any]]) -> int:
    return sum(row["emails_being_sent"] for row in rows)


def replies(bison: Bison, **params: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    page = 1
    while True:
        answer = bison.get("/api/replies", page=page, **params).json()
        rows += answer["data"]
        if page >= answer["meta"]["last_page"]:
            assert len(rows) == answer["meta"]["total"]
            return rows
        page += 1


def test_a_plan_can_be_asked_for_in_the_body_or_in_the_query(bison: Bison) -> None:
    in_query = bison.data(SCHEDULES, day="tomorrow")
    in_body = bison.call("GET", SCHEDULES, json={"day": "tomorrow"}).json()["data"]
    assert in_body == in_query
    for row in in_query:
        assert type(row["emails_being_sent"]) is int
        assert row["campaign"]["id"] == row["campaign_id"]
        assert type(row["campaign"]["status"]) is int
        assert row["campaign"]["name"]


def test_what_was_planned_for_a_day_is_what_it_sends(bison: Bison) -> None:
    today, tomorrow = (bison.data(SCHEDULES, day=day) for day in ("today", "tomorrow"))
    bison.freeze("2026-03-21T12:00:00-05:00")
    sent = bison.series(TODAY, TODAY + timedelta(days=1))["Sent"]
    assert [planned(today), planned(tomorrow)] == sent


def test_the_plan_of_many_campaigns_comes_in_pages_of_fifteen(bison: Bison) -> None:
    counts = []
    for row in bison.with_key():
        first = bison.get(SCHEDULES, key=row["api_key"], day="tomorrow").json()
        counts.append(first["meta"]["total"])
        assert len(first["data"]) == min(15, counts[-1])
    assert sorted(counts)[-2] <= 5
    assert max(counts) >= 20
    row = bison.with_key()[counts.index(max(counts))]
    pages = [
        bison.data(SCHEDULES, key=row["api_key"], day="tomorrow", page=page) for page in (1, 2, 3)
    ]
    campaigns = [each["campaign_id"] for page in pages for each in page]
    assert len(set(campaigns)) == len(campaigns) == max(counts)
    bison.freeze("2026-03-20T12:00:00-05:00")
    tomorrow = TODAY + timedelta(days=1)
    assert (
        sum(map(planned, pages)) == bison.series(tomorrow, tomorrow, key=row["api_key"])["Sent"][0]
    )
    listed = [bison.data("/api/campaigns", key=row["api_key"], page=page) for page in (1, 2, 3)]
    assert [each["id"] for page in listed for each in page] == campaigns


@pytest.mark.parametrize(("campaigns", "fewest", "most"), [("few", 2, 5), ("many", 20, 40)])
def test_all_workspaces_may_have_few_campaigns_or_many(
    bison: Bison, campaigns: str, fewest: int, most: int
) -> None:
    bison.variants(campaigns=campaigns)
    for row in bison.with_key()[:8]:
        listed = bison.get("/api/campaigns", key=row["api_key"]).json()
        assert fewest <= listed["meta"]["total"] <= most


def test_a_weekend_has_no_plan(bison: Bison) -> None:
    bison.freeze("2026-03-19T12:00:00-05:00")
    refused = bison.get(SCHEDULES, day="day_after_tomorrow")
    assert refused.status_code == 400
    assert refused.json() == {
        "data": {"success": False, "message": "No emails scheduled for this period"}
    }


@pytest.mark.parametrize("day", [None, "", "yesterday", "2026-03-18", 1])
def test_a_plan_of_another_day_is_refused(bison: Bison, day: object) -> None:
    refused = bison.call("GET", SCHEDULES, json={"day": day})
    assert refused.status_code == 422
    assert list(refused.json()["data"]["errors"]) == ["day"]


def test_there_are_as_many_interested_replies_as_the_series_counts(bison: Bison) -> None:
    bison.variants(leads_count_by="reply")
    series = bison.series(TODAY - timedelta(days=59), TODAY)
    interested = replies(bison, status="interested", folder="inbox")
    assert len(interested) == sum(series["Interested"]) > 15
    assert all(reply["interested"] for reply in interested)
    every = replies(bison)
    assert len(every) == sum(series["Replied"])
    assert [reply["id"] for reply in every if reply["interested"]] == [
        reply["id"] for reply in interested
    ]


def test_replies_come_newest_first_and_none_from_the_future(bison: Bison) -> None:
    times = [reply["date_received"] for reply in replies(bison)]
    assert times == sorted(times, reverse=True)
    newest = datetime.fromisoformat(times[0])
    assert newest <= datetime.fromisoformat("2026-03-18T15:00:00-05:00")


def test_a_reply_keeps_its_id_and_its_time_as_days_pass(bison: Bison) -> None:
    before = {reply["id"]: reply["date_received"] for reply in replies(bison)}
    bison.freeze("2026-03-20T12:00:00-05:00")
    after = {reply["id"]: reply["date_received"] for reply in replies(bison)}
    kept = {key: value for key, value in before.items() if key in after}
    assert len(kept) > 0.8 * len(before)
    assert all(after[key] == value for key, value in kept.items())
    assert len(after.keys() - before.keys()) > 0


def test_a_reply_has_the_vendors_members_and_an_invented_sender(bison: Bison) -> None:
    reply = replies(bison, status="interested")[0]
    members = {"uuid", "subject", "automated_reply", "text_body", "html_body", "type"}
    assert members | {"folder", "from_name", "to", "cc"} <= set(reply)
    assert reply["from_email_address"].endswith(".example")


def test_unknown_parameters_of_replies_are_ignored_in_silence(bison: Bison) -> None:
    plain = replies(bison, status="interested")
    assert replies(bison, status="interested", start_date=str(date(2026, 3, 18))) == plain


def test_the_link_to_the_next_page_keeps_the_filter(bison: Bison) -> None:
    first = bison.get("/api/replies", status="interested").json()
    followed = bison.call("GET", first["links"]["next"]).json()
    assert followed["meta"]["current_page"] == 2
    assert followed["meta"]["total"] == first["meta"]["total"]


def test_no_reply_lies_in_another_folder(bison: Bison) -> None:
    assert replies(bison, folder="spam") == []
