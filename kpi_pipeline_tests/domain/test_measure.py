"""What the comparison of events and series decides, and what it leaves undecided."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import product
from random import Random
from zoneinfo import ZoneInfo

import pytest

from kpi_pipeline.domain.events.times import Moment, TimedEvent, timed_event
from kpi_pipeline.domain.measure import (
    Comparison,
    candidate_zones,
    compare,
    quiet_days,
    revised_since,
)

NOW = datetime(2026, 3, 18, 20, tzinfo=UTC)
SINCE = NOW - timedelta(days=10)
NAMES = ("UTC", "America/New_York", "America/Chicago", "America/Los_Angeles")
ZONES = [ZoneInfo(name) for name in NAMES]
LEADS_BY = {"marking": Moment.RECORDED, "reply": Moment.REPLY, "mail": Moment.MAIL}


def lead(mail: datetime, reply: datetime, marked: datetime) -> TimedEvent:
    times = {Moment.MAIL: mail, Moment.REPLY: reply, Moment.RECORDED: marked}
    return TimedEvent("interested", times)


def leads_at_all_hours(number: int = 150) -> list[TimedEvent]:
    """Leads that were marked within the ten days, hours after the reply, days after the mail."""
    chance = Random(7)
    found = []
    for _ in range(number):
        marked = SINCE + chance.random() * (NOW - SINCE)
        reply = marked - timedelta(hours=30 * chance.random())
        found.append(lead(reply - timedelta(hours=90 * chance.random()), reply, marked))
    return found


def leads_of_the_afternoon() -> list[TimedEvent]:
    """Leads that were marked minutes after the reply, far from any midnight; each day one more."""
    found = []
    for n in range(10):
        noon = datetime(2026, 3, 8 + n, 16, tzinfo=UTC)
        for minutes in range(0, 10 * n + 10, 10):
            reply = noon + timedelta(minutes=minutes)
            found.append(lead(reply - timedelta(days=2), reply, reply + timedelta(minutes=9)))
    return found


def series_of(
    events: Iterable[TimedEvent], zone: str, by: Moment, count: str = "interested"
) -> dict[date, dict[str, int | None]]:
    """The series of an instance that counts them so, of four weeks."""
    days = [date(2026, 2, 19) + timedelta(days=n) for n in range(28)]
    counts = Counter(it.times[by].astimezone(ZoneInfo(zone)).date() for it in events)
    return {day: {count: counts[day]} for day in days}


def compared(
    events: Sequence[TimedEvent], zone: str, by: Moment, zones: Sequence[ZoneInfo] = ZONES
) -> Comparison:
    series = series_of(events, zone, by)
    return compare(events, series, since=SINCE, until=NOW, zones=zones)


@pytest.mark.parametrize(("zone", "by"), [*product(NAMES, LEADS_BY)])
def test_each_zone_and_moment_is_found_from_the_leads_of_ten_days(zone: str, by: str) -> None:
    found = compared(leads_at_all_hours(), zone, LEADS_BY[by])

    assert len(found.days) == 9
    answer = found.day_zone()
    assert answer.value == zone, answer
    assert answer.agreeing[zone] == 9
    assert answer.evidence().startswith(f"{zone}: 9 of 9 days agree; ")
    assert found.leads_count_by([ZoneInfo(zone)]).value == by


def test_what_two_zones_or_two_moments_explain_stays_undecided() -> None:
    found = compared(leads_of_the_afternoon(), "UTC", Moment.RECORDED)

    zone, moment = found.day_zone(), found.leads_count_by(ZONES)
    assert (zone.value, zone.possible) == (None, NAMES)
    assert (moment.value, moment.possible) == (None, ("marking", "reply"))
    assert moment.evidence() == "marking: 9 of 9 days agree; reply: 9 of 9; mail: 0 of 9"


def test_without_events_or_with_few_days_nothing_is_decided() -> None:
    none = compared([], "UTC", Moment.RECORDED)
    assert none.day_zone().possible == NAMES
    assert none.day_zone().evidence() == "the feed has no events to compare"
    assert none.leads_count_by(ZONES).possible == tuple(LEADS_BY)

    recent = [it for it in leads_at_all_hours() if it.recorded_at > NOW - timedelta(days=4)]
    few = compared(recent, "UTC", Moment.RECORDED)
    assert 0 < len(few.days) < 5
    assert few.day_zone().possible == NAMES
    assert few.day_zone().evidence().endswith("; fewer than 5 days decide nothing")


def test_a_series_that_nothing_explains_is_said_to_be_so() -> None:
    events = leads_at_all_hours()
    series = series_of(events, "UTC", Moment.RECORDED)
    doubled = {day: {"interested": 2 * (it["interested"] or 1)} for day, it in series.items()}
    found = compare(events, doubled, since=SINCE, until=NOW, zones=ZONES)
    assert found.day_zone().possible == ()
    assert found.leads_count_by(ZONES).possible == ()


def test_a_count_that_lacks_events_spoils_nothing_and_one_odd_day_is_borne() -> None:
    leads = leads_at_all_hours()
    replies = [replace(it, count="replied") for it in leads[:40]]
    series = series_of(leads, "America/New_York", Moment.RECORDED)
    # Automated replies are counted, and are no events.
    full = {day: {**it, "replied": 9 + (it["interested"] or 0)} for day, it in series.items()}
    full[date(2026, 3, 12)]["interested"] = 0
    found = compare([*leads, *replies], full, since=SINCE, until=NOW, zones=ZONES)
    answer = found.day_zone()
    assert answer.value == "America/New_York"
    assert answer.agreeing["America/New_York"] == len(found.days) - 1


def test_a_moment_that_bodies_lack_can_not_be_excluded() -> None:
    def without(*moments: Moment) -> list[TimedEvent]:
        return [
            replace(it, times={m: at for m, at in it.times.items() if m not in moments})
            for it in leads_at_all_hours()
        ]

    answer = compared(without(Moment.REPLY), "UTC", Moment.RECORDED).leads_count_by(ZONES)
    assert (answer.value, answer.possible) == (None, ("marking", "reply"))
    assert answer.untested == ("reply",)
    assert "reply: not tested" in answer.evidence()


def test_the_reply_of_a_lead_is_found_among_the_replies() -> None:
    leads = [replace(it, lead=("7", str(n))) for n, it in enumerate(leads_at_all_hours())]
    replies = [replace(it, count="replied") for it in leads]
    bare = [
        replace(it, times={m: at for m, at in it.times.items() if m is not Moment.REPLY})
        for it in leads
    ]
    series = series_of(leads, "UTC", Moment.REPLY)
    both = {day: {**it, "replied": it["interested"]} for day, it in series.items()}
    found = compare([*bare, *replies], both, since=SINCE, until=NOW, zones=ZONES)
    assert found.leads_count_by(ZONES).value == "reply"


def test_days_before_the_first_event_of_a_shorter_feed_are_not_compared() -> None:
    events = leads_at_all_hours()
    series = series_of(events, "UTC", Moment.RECORDED)
    kept = [it for it in events if it.recorded_at >= datetime(2026, 3, 11, tzinfo=UTC)]
    found = compare(kept, series, since=SINCE, until=NOW, zones=[ZoneInfo("UTC")])
    assert found.days == [date(2026, 3, 11) + timedelta(days=n) for n in range(7)]
    assert found.day_zone().value == "UTC"


def test_an_event_that_is_recorded_days_later_shows_how_long_a_day_is_revised() -> None:
    events = leads_at_all_hours()
    by_mail = compared(events, "UTC", Moment.MAIL)
    days = [(it.recorded_at.date() - it.times[Moment.MAIL].date()).days for it in events]
    assert by_mail.revised_age(ZoneInfo("UTC")) == max(days)
    assert compared(events, "UTC", Moment.RECORDED).revised_age(ZoneInfo("UTC")) is None


def test_two_readings_of_the_series_show_which_closed_days_were_revised() -> None:
    days = [date(2026, 3, 1) + timedelta(days=n) for n in range(10)]
    before = {day: {"replied": 5} for day in days}
    today = days[-1]
    assert revised_since(before, before, today) is None
    assert revised_since(before, {**before, today: {"replied": 9}}, today) is None
    later = {**before, today: {"replied": 9}, days[3]: {"replied": 6}, days[7]: {"replied": 7}}
    assert revised_since(before, later, today) == 6


def test_days_without_activity_are_listed_left_out_or_not_known() -> None:
    days = [date(2026, 3, 1) + timedelta(days=n) for n in range(6)]
    sent = dict(zip(days, (0, 4, 0, 0, 5, 6), strict=True))
    series = {day: {"sent": number} for day, number in sent.items()}
    active = [day for day, number in sent.items() if number]
    assert quiet_days(series, days).value == "listed"
    assert quiet_days(series, active).value == "left out"
    # That the days before the first email are left out says nothing.
    assert quiet_days(series, days[1:]).value == "listed"
    assert quiet_days(series, [*active, days[2]]).possible == ()
    unknown = quiet_days({day: {"sent": 1} for day in days}, days)
    assert (unknown.value, unknown.possible) == (None, ("listed", "left out"))
    assert unknown.evidence().endswith("there were no such days")


def test_of_zones_with_the_same_clock_the_configured_one_is_tried() -> None:
    zones = candidate_zones([ZoneInfo("US/Eastern")], ["Europe/London", "Nowhere/At_All", ""], NOW)
    names = [zone.key for zone in zones]
    assert names[0] == "US/Eastern"
    assert "America/New_York" not in names
    # In winter their clocks agree, in summer not.
    assert {"UTC", "Europe/London"} <= set(names)


def test_the_times_of_a_row_are_read_where_they_belong() -> None:
    data = {
        "campaign_event": {
            "type": "replied",
            "created_at": "2026-03-12T10:00:00.000000Z",
            "local_timezone": "America/Denver",
        },
        "scheduled_email": {"sent_at": "2026-03-10T10:00:00.000000Z"},
        "lead": {"id": 5},
        "campaign": {"id": 6},
    }
    recorded = datetime(2026, 3, 12, 18, tzinfo=UTC)
    body = json.dumps({"payload": {"event": {}, "data": data}}).encode()
    found = timed_event(body, "lead_interested", recorded)
    assert (found.count, found.lead, found.local_zone) == (
        "interested",
        ("5", "6"),
        "America/Denver",
    )
    assert found.times == {
        Moment.RECORDED: recorded,
        Moment.REPLY: datetime(2026, 3, 12, 10, tzinfo=UTC),
        Moment.MAIL: datetime(2026, 3, 10, 10, tzinfo=UTC),
    }
    data["campaign_event"] = {"type": "bounce", "created_at": "2026-03-12T10:00:00"}
    body = json.dumps({"payload": {"event": {}, "data": data}}).encode()
    # A time without a zone is none.
    assert Moment.HAPPENED not in timed_event(body, "email_bounced", recorded).times
