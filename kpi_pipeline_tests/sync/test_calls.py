"""What a sync asks Email Bison for, by Bison's own log of its calls."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from urllib.parse import parse_qs
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from kpi_pipeline.db.tables import raw_bison_stats, sending_plans, sync_log
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.domain.columns import FACT_COUNTS
from kpi_pipeline.sync.run import run_sync
from kpi_pipeline.sync.scope import PartitionBlock
from kpi_pipeline_tests.agency import (
    PLANS,
    SERIES,
    SWITCH,
    WHO_AM_I,
    Agency,
    differences,
    errors,
)
from kpi_pipeline_tests.bison_sandbox.running import TODAY
from kpi_pipeline_tests.conftest import NOW

YESTERDAY = TODAY - timedelta(days=1)


def last_days(count: int) -> list[date]:
    return days_between(TODAY - timedelta(days=count - 1), TODAY)


@pytest.mark.parametrize("days", [8, 60])
def test_facts_are_one_call_for_each_client_whatever_the_period(agency: Agency, days: int) -> None:
    agency.synced(last_days(days), agency.some)

    calls = agency.calls()
    series = {
        slug: sum(call["path"] == SERIES for call in of_one) for slug, of_one in calls.items()
    }
    assert series == dict.fromkeys(agency.some, 1)
    paths = {call["path"] for of_one in calls.values() for call in of_one}
    assert paths == {SERIES, PLANS, WHO_AM_I, SWITCH}, "nothing is asked for window by window"


def test_a_period_beyond_the_longest_call_is_fetched_in_parts_without_gap_or_overlap(
    agency: Agency,
) -> None:
    agency = agency.with_settings(series_max_days=61)
    slug, dates = agency.keyed[0], last_days(60)

    agency.synced(dates, [slug])

    asked = [parse_qs(call["query"]) for call in agency.calls()[slug] if call["path"] == SERIES]
    parts = [
        (date.fromisoformat(it["start_date"][0]), date.fromisoformat(it["end_date"][0]))
        for it in asked
    ]
    # 60 days from 18 January: their windows reach back to 1 December.
    assert [first for first, _ in parts] == [date(2025, 12, 1), date(2026, 1, 31)]
    assert parts[-1][1] == TODAY
    assert all(last - first <= timedelta(days=60) for first, last in parts)
    assert all(after - last == timedelta(days=1) for (_, last), (after, _) in pairwise(parts))
    last_week = dates[-7:]
    rows = {key: row for key, row in agency.rows().items() if key[1] in last_week}
    assert differences(rows, agency.expected(last_week, [slug])) == []


def test_todays_sending_plan_is_never_asked_for_or_stored_with_past_dates(agency: Agency) -> None:
    agency.synced([YESTERDAY - timedelta(days=1), YESTERDAY], agency.some)

    paths = Counter(call["path"] for of_one in agency.calls().values() for call in of_one)
    assert paths[SERIES] == len(agency.some)
    assert paths[PLANS] == 0
    assert agency.table(sending_plans) == []


def test_a_sending_plan_is_on_todays_row_alone(agency: Agency) -> None:
    agency.synced(last_days(8), agency.some)

    plans = agency.table(sending_plans)
    assert Counter(plan["date"] for plan in plans) == {TODAY: len(agency.some)}
    assert any(plan["emails_scheduled_tomorrow"] > 0 for plan in plans)
    columns = ("emails_scheduled_today", "emails_scheduled_tomorrow")
    for (_, day), row in agency.rows().items():
        assert all((row[column] is not None) == (day == TODAY) for column in columns)


def test_a_sending_plan_is_dropped_if_midnight_passes_while_it_is_fetched(agency: Agency) -> None:
    before_midnight = datetime(2026, 3, 19, 4, 59, 59, tzinfo=UTC)

    def clock() -> datetime:
        asked = any(call["path"] == PLANS for call in agency.bison.calls())
        return before_midnight + timedelta(seconds=2 if asked else 0)

    late = agency.with_app(now=clock)
    slug = agency.keyed[0]
    agency.bison.freeze(before_midnight.isoformat())

    late.synced([YESTERDAY, TODAY], [slug])

    assert [call["path"] for call in agency.calls()[slug]].count(PLANS) == 2
    assert agency.table(sending_plans) == []
    row = agency.rows()[slug, TODAY]
    assert row["emails_scheduled_today"] is None
    assert row["emails_sent_today"] > 0
    assert row["as_of"] == before_midnight


@pytest.mark.parametrize(
    ("hour", "zone", "asked"),
    [
        pytest.param(15, None, True, id="the same date wherever Bison's days are bounded"),
        pytest.param(19, None, False, id="tomorrow already, if they are bounded by UTC"),
        pytest.param(19, ZoneInfo("America/Chicago"), True, id="known to be the business's own"),
        pytest.param(19, ZoneInfo("UTC"), False, id="known to be UTC"),
    ],
)
def test_plans_are_asked_for_only_while_email_bison_surely_has_the_same_date(
    agency: Agency, hour: int, zone: ZoneInfo | None, asked: bool
) -> None:
    slug = agency.keyed[0]
    instant = datetime(2026, 3, 18, hour, tzinfo=agency.app.timezone).astimezone(UTC)
    late = agency.with_settings(bison_timezone=zone).moved_to(instant)

    late.synced([TODAY], [slug])

    assert any(call["path"] == PLANS for call in agency.calls()[slug]) is asked
    assert (agency.rows()[slug, TODAY]["emails_scheduled_today"] is not None) is asked


def test_a_plan_of_the_afternoon_stays_when_the_evening_asks_for_none(agency: Agency) -> None:
    slug = agency.keyed[0]
    unknown = agency.with_settings(bison_timezone=None)
    unknown.synced([TODAY], [slug])
    planned = agency.rows()[slug, TODAY]["emails_scheduled_today"]
    assert planned is not None

    unknown.moved_to(datetime(2026, 3, 19, 1, tzinfo=UTC)).synced([TODAY], [slug])

    assert agency.rows()[slug, TODAY]["emails_scheduled_today"] == planned


@pytest.mark.parametrize("answered", [True, False], ids=["plans", "no plans offered"])
def test_a_refresh_makes_one_call_for_each_client_and_asks_for_plans_once_an_hour(
    agency: Agency, answered: bool
) -> None:
    if not answered:
        agency.bison.fault("status", status=404, path=PLANS)
    clients = agency.keyed[:4]
    made = []
    for refresh in range(9):
        now = agency.moved_to(NOW + refresh * timedelta(minutes=15))
        now.forget_calls()
        block = PartitionBlock(clients, [YESTERDAY, TODAY], plan_max_age=timedelta(minutes=57))
        outcomes = run_sync(now.app, block, run_id="a refresh")
        assert [it.error for it in outcomes] == [None] * len(clients)
        made.append(Counter(call["path"] for of_one in now.calls().values() for call in of_one))

    assert [it[SERIES] for it in made] == [len(clients)] * 9
    due = [0, 4, 8]
    assert [refresh for refresh, it in enumerate(made) if it[PLANS]] == due
    least = len(clients) * (2 if answered else 1)
    assert all(made[refresh][PLANS] >= least for refresh in due)
    others = [it.total() / len(clients) for refresh, it in enumerate(made) if refresh not in due]
    assert max(others) <= 1.1
    known = {row["emails_scheduled_today"] is not None for row in agency.table(sending_plans)}
    assert known == {answered}


def test_the_calls_counted_for_each_client_are_those_in_bisons_own_log(agency: Agency) -> None:
    rejected, gone, gone_keyless = agency.keyed[2], agency.keyed[9], agency.keyless[1]
    agency.revoke(rejected)
    agency.delete(gone)
    agency.delete(gone_keyless)

    clients = [rejected, gone, *agency.keyed[4:6], *agency.keyless]
    outcomes = agency.sync([YESTERDAY, TODAY], clients)

    made = {slug: len(calls) for slug, calls in agency.calls().items()}
    made[gone_keyless] = made.pop("")
    counted = {slug: outcome.api_calls for slug, outcome in outcomes.items()}
    assert counted == made
    assert errors(outcomes).keys() == {rejected, gone, gone_keyless}
    assert all(counted[slug] >= 1 for slug in (rejected, gone, gone_keyless))
    logged = {row["workspace"]: row["api_calls"] for row in agency.table(sync_log)}
    assert logged == counted


def test_each_outcome_tells_whose_key_was_used(agency: Agency) -> None:
    outcomes = agency.sync([YESTERDAY], [*agency.keyless, *agency.keyed[:4]])

    used = {slug: outcome.key_used for slug, outcome in outcomes.items()}
    assert used == dict.fromkeys(agency.keyless, "master") | dict.fromkeys(
        agency.keyed[:4], "workspace"
    )
    logged = {row["workspace"]: row["key_used"] for row in agency.table(sync_log)}
    assert logged == used


def test_an_outcome_tells_how_many_days_of_facts_were_fetched(agency: Agency) -> None:
    slug = agency.keyed[0]

    outcome = agency.sync([YESTERDAY], [slug])[slug]

    # From 1 February, the month before; the 30 days begin later.
    assert outcome.fact_days == 28 + YESTERDAY.day
    facts = agency.rows(raw_bison_stats)
    assert sorted(day for _, day in facts) == days_between(date(2026, 2, 1), YESTERDAY)
    assert {row["as_of"] for row in facts.values()} == {NOW}
    assert outcome.numbers.keys() == {YESTERDAY}
    reported = outcome.numbers[YESTERDAY].facts or ()
    sent = dict(zip(FACT_COUNTS, reported, strict=True))["sent"]
    assert sent == facts[slug, YESTERDAY]["sent"]


def test_time_of_waiting_and_time_in_calls_are_logged_separately(agency: Agency) -> None:
    slug = agency.keyed[0]
    told_to_wait = text(
        "INSERT INTO bison_pacing (instance, next_free_at) "
        "VALUES ('main', clock_timestamp() + interval '2 seconds')"
    )
    with agency.app.engine.begin() as connection:
        connection.execute(told_to_wait)

    outcome = agency.sync([TODAY], [slug])[slug]

    assert outcome.waiting_seconds > 1
    assert outcome.calling_seconds > 0
    assert outcome.waiting_seconds + outcome.calling_seconds <= outcome.seconds + 0.01
    [row] = agency.table(sync_log)
    assert float(row["waiting_seconds"]) == outcome.waiting_seconds
    assert float(row["calling_seconds"]) == outcome.calling_seconds
