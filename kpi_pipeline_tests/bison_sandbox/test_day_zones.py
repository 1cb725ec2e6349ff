"""The variant `day_zone`: which zone bounds a day. The sandbox's own is America/Chicago."""

from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from bison_sandbox.variants import workspace_zone
from kpi_pipeline_tests.bison_sandbox.running import TODAY, Bison

# Wednesday evening in Chicago, Thursday morning in Tokyo.
EVENING = "2026-03-18T20:00:00-05:00"
TOMORROW = TODAY + timedelta(days=1)
SCHEDULES = "/api/campaigns/sending-schedules"


def sent(bison: Bison, key: str | None = None) -> list[int]:
    return bison.series(TODAY, TOMORROW, key=key)["Sent"]


def test_the_sandboxs_own_zone_is_the_default(bison: Bison) -> None:
    bison.freeze(EVENING)
    before = sent(bison)
    bison.variants(day_zone="America/Chicago")
    assert sent(bison) == before
    assert before[0] > before[1] == 0


def test_a_zone_further_east_has_tomorrow_already(bison: Bison) -> None:
    bison.freeze(EVENING)
    chicago = sent(bison)
    bison.variants(day_zone="Asia/Tokyo")
    tokyo = sent(bison)
    assert tokyo[0] >= chicago[0]
    assert tokyo[1] > 0
    assert bison.http.get("/sandbox/setup").json()["today"] == str(TODAY)


def test_the_part_of_today_that_has_passed_is_the_zones_own(bison: Bison) -> None:
    bison.freeze("2026-03-18T12:00:00-05:00")
    counts = {}
    for zone in ("America/Los_Angeles", "America/Chicago", "Europe/London"):
        bison.variants(day_zone=zone)
        counts[zone] = sent(bison)[0]
    assert sorted(counts.values()) == list(counts.values())
    assert len(set(counts.values())) == 3
    # Noon in Los Angeles shows what noon in Chicago shows.
    bison.freeze("2026-03-18T12:00:00-07:00")
    bison.variants(day_zone="America/Los_Angeles")
    assert sent(bison)[0] == counts["America/Chicago"]


def test_the_plan_of_today_is_that_of_the_zones_today(bison: Bison) -> None:
    bison.freeze(EVENING)
    tomorrow = bison.data(SCHEDULES, day="tomorrow")
    bison.variants(day_zone="Asia/Tokyo")
    assert bison.data(SCHEDULES, day="today") == tomorrow


def days_of_replies(bison: Bison, zone: str) -> dict[date, int]:
    """How many replies came on each date, read by this zone."""
    bison.variants(paging="whole")
    rows: list[dict[str, Any]] = bison.data("/api/replies")
    days = [
        datetime.fromisoformat(row["date_received"]).astimezone(ZoneInfo(zone)).date()
        for row in rows
    ]
    return {day: days.count(day) for day in set(days)}


@pytest.mark.parametrize("zone", ["America/Chicago", "Asia/Tokyo", "America/Los_Angeles"])
def test_replies_lie_on_the_days_that_count_them(bison: Bison, zone: str) -> None:
    bison.freeze(EVENING)
    bison.variants(day_zone=zone)
    first = TODAY - timedelta(days=40)
    counted = dict(
        zip(
            (first + timedelta(days=n) for n in range(41)),
            bison.series(first, TODAY)["Replied"],
            strict=True,
        )
    )
    found = days_of_replies(bison, zone)
    assert sum(counted.values()) > 10
    assert {day: found.get(day, 0) for day in counted} == counted


def test_each_workspace_may_have_a_zone_of_its_own(bison: Bison) -> None:
    bison.freeze("2026-03-18T12:00:00-05:00")
    rows = bison.with_key()
    bison.variants(day_zone="workspace")
    own = {row["bison_workspace_id"]: sent(bison, row["api_key"]) for row in rows}
    zones = {
        row["bison_workspace_id"]: workspace_zone(int(row["bison_workspace_id"])) for row in rows
    }
    assert len(set(zones.values())) == 5
    for row in rows:
        bison.variants(day_zone=zones[row["bison_workspace_id"]].key)
        assert sent(bison, row["api_key"]) == own[row["bison_workspace_id"]]
