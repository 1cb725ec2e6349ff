"""`GET /api/events`: the events of ten days, as many as the series counts."""

import json
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import count, pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from kpi_pipeline_tests.bison_sandbox.receiver import Receiver, wait_until
from kpi_pipeline_tests.bison_sandbox.running import (
    AFTERNOON,
    TODAY,
    Bison,
    Stage,
    bison_on,
    options,
)

NOW = datetime.fromisoformat(AFTERNOON)
LABELS = {
    "lead_replied": "Replied",
    "lead_interested": "Interested",
    "email_bounced": "Bounced",
    "lead_unsubscribed": "Unsubscribed",
}
Row = dict[str, Any]
Moment = Callable[[Row], str]


def recorded(row: Row) -> str:
    return str(row["created_at"])


def happened(row: Row) -> str:
    return str(row["payload"]["data"]["campaign_event"]["created_at"])


def reply(row: Row) -> str:
    return str(row["payload"]["data"]["reply"]["date_received"])


def mail(row: Row) -> str:
    return str(row["payload"]["data"]["scheduled_email"]["sent_at"])


def feed(bison: Bison, key: str, pages: int = 1_000, **params: Any) -> list[Row]:
    """The rows of all pages, or of the first ones."""
    rows: list[Row] = []
    for _ in range(pages):
        answer = bison.get("/api/events", key=key, **params).json()
        rows += answer["data"]
        params["cursor"] = answer["meta"]["next_cursor"]
        if params["cursor"] is None:
            break
        assert len(answer["data"]) == 15
    return rows


def by_day(rows: list[Row], moment: Moment, zone: str) -> Counter[date]:
    at = (datetime.fromisoformat(moment(row)).astimezone(ZoneInfo(zone)) for row in rows)
    return Counter(each.date() for each in at)


def largest(bison: Bison) -> str:
    rows = sorted(bison.with_key(), key=lambda row: int(row["monthly_sending_target"]))
    return rows[-1]["api_key"]


def series(bison: Bison, key: str, label: str, first: date) -> Counter[date]:
    counts = bison.series(first, TODAY, key=key)[label]
    return Counter({first + timedelta(n): count for n, count in enumerate(counts) if count})


def since(counts: Counter[date], first: date) -> Counter[date]:
    return Counter({day: count for day, count in counts.items() if day >= first})


def test_a_row_has_an_identity_a_recorded_time_and_the_payload_of_the_webhook(
    bison: Bison, receiver: Receiver
) -> None:
    row = bison.with_key()[0]
    bison.parent_hook(f"{receiver.url}/in")
    [event] = bison.mark(row)
    bison.delivered()
    newest = bison.data("/api/events", key=row["api_key"], type="lead_interested")[0]
    assert list(newest) == [
        "id",
        "uuid",
        "payload",
        "webhook_deliveries",
        "created_at",
        "updated_at",
    ]
    assert newest["payload"] == event == receiver.received[0].body
    assert datetime.fromisoformat(newest["created_at"]) == NOW
    assert newest["webhook_deliveries"] == []


def test_rows_come_newest_first_fifteen_a_page_and_none_is_older_than_ten_days(
    bison: Bison,
) -> None:
    key = largest(bison)
    rows = feed(bison, key, type="email_bounced", per_page=100)
    times = [datetime.fromisoformat(row["created_at"]) for row in rows]
    assert len(rows) > 300
    assert all(after <= before for before, after in pairwise(times))
    assert NOW - timedelta(days=10) <= times[-1] <= NOW - timedelta(days=9)
    for name in ("id", "uuid"):
        assert len({row[name] for row in rows}) == len(rows)
    assert max(row["id"] for row in rows) < 2**53


def test_without_a_type_the_feed_lists_all_five(bison: Bison) -> None:
    key = largest(bison)
    rows = bison.data("/api/events", key=key)
    assert len(rows) == 15
    newest = {kind: bison.data("/api/events", key=key, type=kind)[0] for kind in LABELS}
    newest["email_sent"] = bison.data("/api/events", key=key, type="EMAIL_SENT")[0]
    for kind, row in newest.items():
        assert row["payload"]["event"]["type"] == kind.upper()
    assert rows[0] == max(newest.values(), key=lambda row: (row["created_at"], row["id"]))
    assert bison.data("/api/events", key=key, type="tag_attached") == []


def test_a_walk_sees_every_row_once_while_new_events_come(bison: Bison) -> None:
    row = bison.with_key()[0]
    before = feed(bison, row["api_key"], type="lead_replied")
    first = bison.get("/api/events", key=row["api_key"], type="lead_replied").json()
    bison.freeze("2026-03-18T15:00:01-05:00")
    bison.mark(row, leads=7, deliver=False)
    cursor = first["meta"]["next_cursor"]
    rest = feed(bison, row["api_key"], type="lead_replied", cursor=cursor)
    assert first["data"] + rest == before
    assert len(feed(bison, row["api_key"], type="lead_replied")) == len(before) + 7
    second = bison.get("/api/events", key=row["api_key"], type="lead_replied", cursor=cursor).json()
    previous = second["meta"]["prev_cursor"]
    again = bison.get("/api/events", key=row["api_key"], type="lead_replied", cursor=previous)
    assert again.json()["data"] == first["data"]
    # The links drop the filter, so a caller builds its own.
    assert "type" not in first["links"]["next"]
    assert bison.get("/api/events", key=row["api_key"], cursor="x").status_code == 422


def test_dates_are_inclusive_and_a_wrong_one_is_refused(bison: Bison) -> None:
    key = largest(bison)
    every = feed(bison, key, type="email_bounced")
    days = by_day(every, recorded, "America/Chicago")
    first, last = date(2026, 3, 11), date(2026, 3, 13)
    rows = feed(bison, key, type="email_bounced", start_date=str(first), end_date=str(last))
    wanted = {day: count for day, count in days.items() if first <= day <= last}
    assert by_day(rows, recorded, "America/Chicago") == wanted
    assert len(wanted) == 3
    assert bison.get("/api/events", key=key, start_date="soon").status_code == 422


def test_filters_may_be_ignored_and_the_feed_may_be_missing(bison: Bison) -> None:
    key = bison.with_key()[0]["api_key"]
    every = bison.data("/api/events", key=key)
    bison.variants(event_feed="unfiltered")
    assert bison.data("/api/events", key=key, type="lead_interested", start_date="x") == every
    bison.variants(event_feed="missing")
    missing = bison.get("/api/events", key=key)
    assert (missing.status_code, missing.json()["data"]["message"]) == (404, "record_not_found")


def test_a_key_sees_its_own_workspaces_events_alone(bison: Bison) -> None:
    mine, other = bison.with_key()[:2]
    bison.mark(mine, leads=3, deliver=False)
    for row in (mine, other):
        rows = bison.data("/api/events", key=row["api_key"])
        workspaces = {each["payload"]["event"]["workspace_id"] for each in rows}
        assert workspaces == {int(row["bison_workspace_id"])}


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "workspace"])
@pytest.mark.parametrize("kind", ["lead_replied", "email_bounced", "lead_unsubscribed"])
def test_the_events_of_a_day_in_its_zone_are_as_many_as_the_series_counts(
    bison: Bison, zone: str, kind: str
) -> None:
    bison.variants(day_zone=zone)
    key = largest(bison)
    rows = feed(bison, key, type=kind)
    if zone == "workspace":
        zone = rows[0]["payload"]["data"]["campaign_event"]["local_timezone"]
    # Later replies to older days may be older than ten days by now.
    first = TODAY - timedelta(days=9)
    counted = series(bison, key, LABELS[kind], first)
    assert since(by_day(rows, happened, zone), first) == counted
    assert sum(counted.values()) > 15


@pytest.mark.parametrize(
    ("by", "moment"), [("marking", recorded), ("reply", reply), ("mail", mail)]
)
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "America/Los_Angeles"])
def test_only_the_moment_and_zone_of_the_variant_explain_the_leads_of_the_series(
    bison: Bison, by: str, moment: Moment, zone: str
) -> None:
    bison.variants(day_zone=zone, leads_count_by=by, lead_campaign_event="interested")
    key = largest(bison)
    rows = feed(bison, key, type="lead_interested")
    first = TODAY - timedelta(days=6)
    counted = series(bison, key, "Interested", first)
    found = {each: since(by_day(rows, each, zone), first) for each in (recorded, reply, mail)}
    assert [each for each, counts in found.items() if counts == counted] == [moment]
    assert all(happened(row) == recorded(row) for row in rows)


def test_the_feed_has_as_many_sent_mails_as_the_series(stage: Stage, bison: Bison) -> None:
    # A walk over thousands of pages by HTTP would show the same.
    sandbox, row = stage.sandbox, bison.with_key()[0]
    workspace = sandbox.workspaces.get(int(row["bison_workspace_id"]))
    assert workspace is not None
    found = sandbox.events.newest(
        workspace.profile, ("email_sent",), NOW - timedelta(days=3), NOW.astimezone(UTC)
    )
    days = Counter(
        build().happened_at.astimezone(ZoneInfo("America/Chicago")).date() for build in found
    )
    first = TODAY - timedelta(days=2)
    assert since(days, first) == series(bison, row["api_key"], "Sent", first)


def test_bounces_tell_the_zones_apart(bison: Bison) -> None:
    bison.variants(day_zone="America/New_York")
    key, first = largest(bison), TODAY - timedelta(days=8)
    rows = feed(bison, key, type="email_bounced")
    counted = series(bison, key, "Bounced", first)
    zones = ("UTC", "America/New_York", "America/Chicago", "America/Los_Angeles")
    agreeing = [zone for zone in zones if since(by_day(rows, happened, zone), first) == counted]
    assert agreeing == ["America/New_York"]


@pytest.mark.parametrize("revised_days", [0, 2])
def test_late_replies_are_recorded_until_a_day_is_as_old_as_the_variant_says(
    bison: Bison, revised_days: int
) -> None:
    bison.variants(revised_days=revised_days)
    key = largest(bison)
    rows = feed(bison, key, type="email_bounced")
    late = [
        datetime.fromisoformat(recorded(it)) - datetime.fromisoformat(happened(it)) for it in rows
    ]
    assert (max(late) > timedelta(0)) == (revised_days > 0)
    assert max(late) < timedelta(days=revised_days + 1)
    closed = bison.series(TODAY - timedelta(1), TODAY - timedelta(1), key=key)["Bounced"]
    bison.freeze("2026-03-25T15:00:00-05:00")
    settled = bison.series(TODAY - timedelta(1), TODAY - timedelta(1), key=key)["Bounced"]
    assert (settled > closed) == (revised_days > 0)


def test_a_made_event_of_each_type_is_in_the_feed_and_in_the_series(bison: Bison) -> None:
    row = bison.with_key()[0]
    before = bison.series(TODAY, TODAY, key=row["api_key"])
    for kind in ("email_sent", *LABELS):
        body = {"workspace_id": int(row["bison_workspace_id"]), "type": kind, "events": 2}
        made = bison.control("POST", "events", body)["events"]
        shown = bison.data("/api/events", key=row["api_key"], type=kind)[:2]
        assert [it["payload"]["data"] for it in shown] == [it["data"] for it in made]
    after = bison.series(TODAY, TODAY, key=row["api_key"])
    grown = {label: after[label][0] - before[label][0] for label in after}
    # Each lead has a reply, too.
    assert grown == dict.fromkeys(after, 0) | dict.fromkeys(LABELS.values(), 2) | {
        "Replied": 4,
        "Sent": 2,
    }


def test_a_live_sandbox_delivers_the_events_of_the_day_as_they_are_recorded(
    stage: Stage, receiver: Receiver
) -> None:
    with bison_on(stage, options(clients=4, live=True, live_pace=0.001)) as bison:
        row = bison.with_key()[0]
        workspace_id = int(row["bison_workspace_id"])
        body = {"url": f"{receiver.url}/in", "events": ["email_sent", *LABELS]}
        bison.control("POST", "parent-hook", body)
        clock = (NOW + timedelta(seconds=20 * n) for n in count(1))

        def delivered() -> list[Row]:
            texts = [
                it.text for it in receiver.received if f'"workspace_id":{workspace_id}' in it.text
            ]
            return [json.loads(text) for text in texts]

        def some_came() -> bool:
            bison.freeze(next(clock).isoformat())
            time.sleep(0.1)
            return len(delivered()) > 3

        wait_until(some_came, lambda: receiver.received)
        bison.delivered()
        posted = delivered()
        listed = [it["payload"] for it in feed(bison, row["api_key"], pages=8)]
        assert all(body in listed for body in posted)
        times = [datetime.fromisoformat(happened({"payload": body})) for body in posted]
        assert min(times) > NOW - timedelta(hours=1)
        # Each once.
        assert len({it["data"]["campaign_event"]["id"] for it in posted}) == len(posted)
