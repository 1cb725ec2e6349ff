"""One calendar: every date is a day of Email Bison, wherever the agency's clocks are."""

import json
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from kpi_pipeline.db.findings import Finding, store_findings
from kpi_pipeline.domain.calendar import days_between, nightly_dates
from kpi_pipeline.domain.events.event import EventSource, EventStatus
from kpi_pipeline.domain.events.parse import parse_event
from kpi_pipeline.domain.measure import Subject
from kpi_pipeline.inbox.ingest import inbox_of, ingest
from kpi_pipeline_tests.agency import Agency

CHICAGO, UTC_ZONE, TOKYO = (ZoneInfo(it) for it in ("America/Chicago", "UTC", "Asia/Tokyo"))


def in_chicago(day: date, hour: int) -> datetime:
    return datetime.combine(day, time(hour), CHICAGO).astimezone(UTC)


def of_bison(agency: Agency, zone: ZoneInfo) -> Agency:
    """The agency with an Email Bison that counts by days of this zone, as the settings know."""
    agency.bison.variants(day_zone=zone.key)
    return agency.with_settings(bison_timezone=zone)


@pytest.mark.parametrize(
    "day",
    [
        pytest.param(date(2026, 3, 18), id="within a month"),
        pytest.param(date(2026, 3, 31), id="across a month's end"),
        pytest.param(date(2026, 3, 7), id="the night in which clocks change"),
    ],
)
@pytest.mark.parametrize("zone", [UTC_ZONE, TOKYO], ids=lambda it: it.key)
def test_a_lead_at_8_pm_in_chicago_counts_at_once_and_stays_on_the_date_of_email_bison(
    agency: Agency, zone: ZoneInfo, day: date
) -> None:
    """Dated by Chicago, it once counted today, then not, then again on the next day."""
    slug = agency.keyed[0]
    (client,) = [it for it in agency.bison.with_key() if it["api_key"] == agency.key(slug)]
    at_8_pm = in_chicago(day, 20)
    before = of_bison(agency, zone).moved_to(at_8_pm)
    tomorrow = day + timedelta(days=1)
    assert before.today == tomorrow
    before.synced(days_between(*nightly_dates(tomorrow)), [slug])
    closed, open_row = before.rows()[slug, day], before.rows()[slug, tomorrow]

    # Email Bison stands still a minute later: nothing but this lead changes its numbers.
    app = before.moved_to(at_8_pm + timedelta(minutes=1)).app
    (body,) = agency.bison.mark(client)
    event = parse_event(
        json.dumps(body).encode(),
        instance="main",
        source=EventSource.WEBHOOK,
        arrived_at=app.now(),
        tz=app.day_zone,
    )
    (receipt,) = ingest(inbox_of(app, realtime=True), [event])
    assert (receipt.status, event.business_date) == (EventStatus.APPLIED, tomorrow)

    seen = [before.rows()[slug, tomorrow]]
    for hours in (1, 4, 5, 20, 28):
        now = at_8_pm + timedelta(hours=hours)
        later = before.with_app(now=lambda now=now: now)
        later.synced(days_between(*nightly_dates(later.today)), [slug])
        seen.append(later.rows()[slug, tomorrow])
    for column in ("positive_replies_today", "positive_replies_mtd"):
        assert {row[column] for row in seen} == {open_row[column] + 1}, column
        assert before.rows()[slug, day][column] == closed[column]


def test_the_plan_of_today_is_asked_for_on_the_day_of_email_bison(agency: Agency) -> None:
    slug, day = agency.keyed[0], date(2026, 3, 18)
    late = of_bison(agency, TOKYO).moved_to(in_chicago(day, 19))
    tomorrow = day + timedelta(days=1)
    late.synced([day, tomorrow], [slug])
    rows = late.rows()
    assert rows[slug, tomorrow]["emails_scheduled_today"] is not None
    assert rows[slug, day]["emails_scheduled_today"] is None


@pytest.mark.parametrize(
    ("possible", "value", "asked"),
    [
        pytest.param((), None, False, id="not measured: the same evening is tomorrow in UTC"),
        pytest.param(("America/Chicago",), "America/Chicago", True, id="measured, and confirmed"),
        pytest.param(("UTC",), "UTC", False, id="measured, and another one"),
        pytest.param(("America/Chicago", "America/Denver"), None, True, id="two with this date"),
        pytest.param(("America/Chicago", "UTC"), None, False, id="two, of which one has tomorrow"),
        pytest.param(
            ("America/Chicago", "UTC"), "America/Chicago", True, id="decided before, still possible"
        ),
    ],
)
def test_a_measured_zone_says_whether_todays_plan_may_be_asked_for(
    agency: Agency, possible: tuple[str, ...], value: str | None, asked: bool
) -> None:
    slug, day = agency.keyed[0], date(2026, 3, 18)
    late = agency.with_settings(bison_timezone=None).moved_to(in_chicago(day, 19))
    if possible:
        finding = Finding("main", Subject.DAY_ZONE, slug, late.app.now(), possible, "", value)
        with late.app.engine.begin() as connection:
            store_findings(connection, [finding])

    late.synced([day], [slug])

    assert (late.rows()[slug, day]["emails_scheduled_today"] is not None) is asked
