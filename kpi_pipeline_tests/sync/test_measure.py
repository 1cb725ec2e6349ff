"""What `measure_bison` finds in a sandbox of each variant, over HTTP, and what it stores."""

from collections.abc import Mapping
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.day_zone import ensure_day_zone, stored_day_zone, with_measured_zone
from kpi_pipeline.db.findings import Finding, read_findings
from kpi_pipeline.domain.measure import Subject
from kpi_pipeline.errors import KpiError
from kpi_pipeline.inbox.rezone import adopt_day_zone
from kpi_pipeline.sync.measure import Measured, adopt_if_empty, measure_bison, measure_if_due
from kpi_pipeline_tests.agency import Agency
from kpi_pipeline_tests.bison_sandbox.running import TODAY
from kpi_pipeline_tests.conftest import NOW

ZONES = ("UTC", "America/New_York", "America/Los_Angeles")
FEED = "/api/events"


def stored(app: AppContext) -> Mapping[Subject, Finding]:
    with app.engine.connect() as connection:
        return {it.subject: it for it in read_findings(connection)}


def by_size(agency: Agency) -> list[str]:
    """The clients with an API key, from the one with the fewest mails to the busiest."""
    slugs = {str(number): slug for slug, number in agency.ids.items()}
    rows = sorted(agency.bison.with_key(), key=lambda it: int(it["monthly_sending_target"]))
    return [slugs[row["bison_workspace_id"]] for row in rows]


def measured(agency: Agency, workspace: str | None = None) -> Mapping[Subject, Finding]:
    """What is found with one client, by default one with a sixth of the events of the busiest."""
    [found] = measure_bison(agency.app, [workspace or by_size(agency)[18]])
    assert found.problem is None
    findings = stored(agency.app)
    assert {it.subject: it for it in found.findings} == findings
    return findings


def unset(agency: Agency) -> Agency:
    """The same without KPI_BISON_TIMEZONE."""
    return agency.with_settings(bison_timezone=None)


@pytest.mark.parametrize(
    ("zone", "by"),
    [
        pytest.param(zone, by, marks=[pytest.mark.long] if place != row else [])
        for row, zone in enumerate(ZONES)
        for place, by in enumerate(("marking", "reply", "mail"))
    ],
)
def test_it_finds_the_zone_and_the_moment_of_each_variant_from_ten_days(
    agency: Agency, zone: str, by: str
) -> None:
    agency.bison.variants(day_zone=zone, leads_count_by=by)

    findings = measured(agency)

    assert findings[Subject.DAY_ZONE].value == zone, findings
    assert findings[Subject.DAY_ZONE].evidence.startswith(f"{zone}: 9 of 9 days agree; ")
    assert findings[Subject.LEADS_COUNT_BY].value == by, findings
    # Late replies and bounces of the sandbox are recorded until a day is a week old.
    age = findings[Subject.REVISED_AGE].value
    assert age is not None
    assert int(age) >= 7


def test_two_zones_with_the_same_clock_in_these_ten_days_stay_undecided(agency: Agency) -> None:
    agency.bison.variants(day_zone="UTC")
    # Until the end of March, London's clocks show UTC.
    london = agency.with_settings(timezone=ZoneInfo("Europe/London"))

    found = measured(london)[Subject.DAY_ZONE]

    assert found.value is None
    assert sorted(found.possible) == ["Europe/London", "UTC"]
    assert found.evidence.startswith("Europe/London: 9 of 9 days agree; UTC: 9 of 9; ")


def test_a_feed_that_can_not_be_read_whole_decides_nothing_and_what_was_decided_stays(
    agency: Agency, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert measured(agency)[Subject.DAY_ZONE].value == "America/Chicago"
    agency.bison.variants(event_feed="unfiltered")
    monkeypatch.setattr("kpi_pipeline.sync.measure._MOST_ROWS", 300)

    [found] = measure_bison(agency.app)

    assert found.notes == [
        "Events of the type lead_interested are left out: the feed has more than 300 rows, as "
        "it ignores the type."
    ]
    after = stored(agency.app)[Subject.DAY_ZONE]
    assert after.evidence == "the feed has no events to compare"
    assert set(ZONES) < set(after.possible)
    assert (after.value, after.before) == ("America/Chicago", None)


@pytest.mark.parametrize(("empty_days", "answer"), [("zeros", "listed"), ("omitted", "left out")])
def test_it_finds_whether_days_without_activity_are_listed(
    agency: Agency, empty_days: str, answer: str
) -> None:
    agency.bison.variants(empty_days=empty_days)
    # The busiest sends on each day of a week.
    smallest, *_, busiest = by_size(agency)
    assert measured(agency, smallest)[Subject.QUIET_DAYS].value == answer
    assert measured(agency, busiest)[Subject.QUIET_DAYS].possible == ["listed", "left out"]


def test_a_changed_answer_is_kept_beside_the_one_before(agency: Agency) -> None:
    measured(agency)
    agency.bison.variants(day_zone="UTC", leads_count_by="mail")
    later = agency.with_app(now=lambda: NOW + timedelta(minutes=1))

    findings = measured(later)

    for subject, values in {
        Subject.DAY_ZONE: ("UTC", "America/Chicago"),
        Subject.LEADS_COUNT_BY: ("mail", "marking"),
    }.items():
        assert (findings[subject].value, findings[subject].before) == values
        assert findings[subject].changed_at == later.app.now()


def test_the_next_reading_of_the_series_shows_which_days_were_revised(agency: Agency) -> None:
    agency.bison.variants(revised_days=0)
    findings = measured(agency)
    assert findings[Subject.REVISED_AGE].value is None
    assert "the next measurement compares" in findings[Subject.REVISED_AGE].evidence
    changed = agency.sql(
        "UPDATE bison_series_readings "
        "SET days = jsonb_set(days, ARRAY[:day, 'replied'], '1') RETURNING read_on",
        day=str(TODAY - timedelta(days=20)),
    )
    assert changed[0][0] == TODAY
    assert measured(agency)[Subject.REVISED_AGE].value == "20"
    # It was seen once, so it stays.
    assert measured(agency)[Subject.REVISED_AGE].value == "20"


def test_an_installation_without_data_adopts_the_zone_and_one_with_data_does_not(
    agency: Agency,
) -> None:
    agency.bison.variants(day_zone="America/New_York")
    app = unset(agency).app
    ensure_day_zone(app.engine, app.settings)
    measured(agency)
    assert adopt_if_empty(agency.app) is None, "a setting names the zone"

    assert adopt_if_empty(app) == ZoneInfo("America/New_York")

    assert with_measured_zone(app.engine, app.settings).day_zone.key == "America/New_York"
    assert with_measured_zone(app.engine, agency.app.settings).day_zone.key == "America/Chicago"
    # A process that is not given the zone does not set it back.
    with pytest.raises(KpiError, match="KPI_BISON_TIMEZONE=America/New_York"):
        ensure_day_zone(app.engine, app.settings)

    # Nor does `kpi recompute --adopt-timezone` that adopts the same zone again.
    adopt_day_zone(app.engine, ZoneInfo("America/New_York"))
    assert with_measured_zone(app.engine, app.settings).day_zone.key == "America/New_York"
    adopted = agency.with_settings(bison_timezone=ZoneInfo("America/New_York"))
    adopted.synced([TODAY], agency.some)
    agency.bison.variants(day_zone="UTC")
    assert measured(agency)[Subject.DAY_ZONE].value == "UTC"
    assert adopt_if_empty(app) is None
    with app.engine.connect() as connection:
        assert stored_day_zone(connection) == "America/New_York"


def test_each_night_one_client_of_each_instance_is_read_unless_the_feed_is_off(
    agency: Agency,
) -> None:
    agency.synced([TODAY], agency.some)
    agency.forget_calls()

    [found] = measure_if_due(agency.app)

    calls = agency.calls()
    assert found.workspace in agency.some
    assert {slug for slug, made in calls.items() if any(it["path"] == FEED for it in made)} == {
        found.workspace
    }
    assert measure_if_due(agency.with_app(now=lambda: NOW + timedelta(hours=19)).app) == []
    assert measure_if_due(agency.with_settings(event_feed_minutes=None).app) == []


def test_an_instance_that_can_not_be_measured_says_why(agency: Agency) -> None:
    agency.bison.variants(event_feed="missing")
    [found] = measure_bison(agency.app)
    assert found == Measured(
        "main", found.workspace, problem="main has no event feed, so nothing can be measured."
    )
    assert stored(agency.app) == {}
    with pytest.raises(KpiError, match="Name one client of each instance"):
        measure_bison(agency.app, agency.keyed[:2])
