"""The check `freshness` judges each of the last 62 days: by when it must be closed, and whether."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, delete, update

from kpi_pipeline.checks.freshness import (
    NIGHTLY_SYNC,
    Deadlines,
    FreshnessStatus,
    freshness,
    freshness_statuses,
)
from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline.domain.calendar import day_start
from kpi_pipeline.orchestration.automation import build_automation
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.checks.support import (
    CHICAGO,
    ONE_DAY,
    TODAY,
    YESTERDAY,
    Stock,
    local,
    problems,
)

BERLIN = ZoneInfo("Europe/Berlin")
AFTERNOON = local(TODAY, 15)
# The first of the 62 days up to today.
FIRST = date(2026, 1, 16)


@pytest.fixture
def stock(engine: Engine, vault: Vault) -> Stock:
    """Acme, with a closed row of each past day since 1 January, and a fresh one of today."""
    stock = Stock(engine, vault)
    stock.clients("Acme")
    stock.rows("acme", date(2026, 1, 1), YESTERDAY)
    stock.rows("acme", TODAY, as_of=local(TODAY, 14, 30))
    return stock


def as_of(stock: Stock, day: date, instant: datetime) -> None:
    """Have the row of that day come from facts of that time."""
    with stock.engine.begin() as connection:
        statement = update(client_metrics).where(client_metrics.c.metric_date == day)
        connection.execute(statement.values(as_of=instant))


def delete_row(stock: Stock, day: date) -> None:
    with stock.engine.begin() as connection:
        connection.execute(delete(client_metrics).where(client_metrics.c.metric_date == day))


def statuses(
    stock: Stock,
    now: datetime = AFTERNOON,
    zone: ZoneInfo = CHICAGO,
    deadlines: Deadlines | None = None,
) -> list[FreshnessStatus]:
    with stock.engine.connect() as connection:
        return freshness_statuses(connection, now, zone, deadlines or Deadlines())


def named(stock: Stock, now: datetime = AFTERNOON) -> list[str]:
    return [text for it in statuses(stock, now) for text in it.problems]


@pytest.mark.parametrize("day", [date(2026, 2, 25), FIRST, YESTERDAY])
def test_a_day_whose_last_fetch_was_at_10_of_that_day_does_not_pass_for_ever(
    stock: Stock, day: date
) -> None:
    assert named(stock) == []
    as_of(stock, day, local(day, 10))
    found = freshness(statuses(stock), AFTERNOON, CHICAGO, Deadlines())
    assert problems(found) == [("acme", f"{day} is not closed")]
    assert found.severity is Severity.ERROR
    assert "`kpi sync`, which fetches all days that are not closed" in found.description
    as_of(stock, day, day_start(day + ONE_DAY, CHICAGO))
    assert named(stock) == []


def test_a_day_that_is_older_than_62_days_is_not_judged(stock: Stock) -> None:
    as_of(stock, FIRST - ONE_DAY, local(FIRST - ONE_DAY, 10))
    assert named(stock) == []


def test_the_first_three_of_many_open_days_are_named(stock: Stock) -> None:
    for number in (20, 12, 11, 10, 5):
        as_of(stock, date(2026, 2, number), local(date(2026, 2, number), 10))
    assert named(stock) == ["2026-02-05, 2026-02-10, 2026-02-11 and 2 more are not closed"]


def test_a_row_of_events_alone_is_not_closed(stock: Stock) -> None:
    as_of(stock, date(2026, 2, 5), day_start(date(2026, 2, 5), CHICAGO))
    assert named(stock) == ["2026-02-05 is not closed"]


def test_a_day_without_a_row_is_left_to_the_check_of_completeness(stock: Stock) -> None:
    delete_row(stock, date(2026, 2, 5))
    assert named(stock) == []
    delete_row(stock, YESTERDAY)
    assert named(stock) == ["2026-03-17 is not closed"]


def test_a_day_of_25_hours_is_open_in_its_last_hour(stock: Stock) -> None:
    sunday, monday = date(2025, 11, 2), date(2025, 11, 3)
    stock.rows("acme", sunday, as_of=datetime(2025, 11, 3, 5, 59, tzinfo=UTC))
    stock.rows("acme", monday, as_of=datetime(2025, 11, 4, 6, 0, tzinfo=UTC))
    stock.rows("acme", monday + ONE_DAY, as_of=local(monday + ONE_DAY, 14, 30))
    assert named(stock, local(monday + ONE_DAY, 15)) == ["2025-11-02 is not closed"]


def test_facts_from_the_future_are_an_error_that_says_what_happened(stock: Stock) -> None:
    stock.facts("acme", TODAY, as_of=AFTERNOON + timedelta(seconds=30))
    as_of(stock, TODAY, AFTERNOON + timedelta(seconds=30))
    assert named(stock) == []
    tomorrow = local(TODAY + ONE_DAY, 17)
    stock.facts("acme", YESTERDAY, TODAY, as_of=tomorrow)
    for day in (YESTERDAY, TODAY):
        as_of(stock, day, tomorrow)
    (status,) = statuses(stock)
    assert status.problems == [
        "its facts claim to be from Thu 19 Mar 2026, 17:00 CDT, which is still to come: a clock "
        "was ahead, and the next sync replaces them"
    ]
    assert status.severity is Severity.ERROR
    # What such facts say of their own age is not believed.
    assert status.as_of == AFTERNOON


def test_a_client_whose_only_facts_are_from_the_future_is_an_error(stock: Stock) -> None:
    stock.clients("Birch")
    stock.facts("birch", TODAY, as_of=AFTERNOON + ONE_DAY)
    found = freshness(statuses(stock), AFTERNOON, BERLIN, Deadlines(timezone=BERLIN))
    assert found.severity is Severity.ERROR
    assert [it["workspace"] for it in found.problems] == ["birch"]
    assert str(found.problems[0]["problem"]).endswith("; it has no row yet")


@pytest.mark.parametrize(
    ("zone", "wall", "closed_by"),
    [
        pytest.param(CHICAGO, None, local(TODAY, 6), id="one zone"),
        pytest.param(CHICAGO, CHICAGO, local(TODAY, 6), id="the same zone twice"),
        # The 17th ends in Chicago at 6 am of the 18th in Berlin: the next night is the first
        # whose sync comes after it.
        pytest.param(
            CHICAGO, BERLIN, datetime(2026, 3, 19, 6, 0, tzinfo=BERLIN), id="days end later"
        ),
        # The 17th ends in Berlin at 6 pm of the 17th in Chicago.
        pytest.param(BERLIN, CHICAGO, local(TODAY, 6), id="days end earlier"),
    ],
)
def test_a_day_has_to_be_closed_after_the_first_nightly_sync_that_follows_its_end(
    zone: ZoneInfo, wall: ZoneInfo | None, closed_by: datetime
) -> None:
    deadlines = Deadlines(timezone=wall)
    assert deadlines.closed_by(YESTERDAY, zone) == closed_by
    second = timedelta(seconds=1)
    assert deadlines.last_closed_day(closed_by, zone) == YESTERDAY
    assert deadlines.last_closed_day(closed_by - second, zone) == YESTERDAY - ONE_DAY


def test_in_two_zones_a_day_is_open_until_the_deadline_of_the_clock_on_the_wall(
    stock: Stock,
) -> None:
    as_of(stock, YESTERDAY, local(YESTERDAY, 23))
    due = datetime(2026, 3, 19, 6, 0, tzinfo=BERLIN)
    wanted = Deadlines(stale_after=timedelta(days=3), timezone=BERLIN)
    assert statuses(stock, due - timedelta(seconds=1), CHICAGO, wanted)[0].severity is None
    (status,) = statuses(stock, due, CHICAGO, wanted)
    assert status.problems == ["2026-03-17 is not closed"]
    assert status.severity is Severity.WARN
    # The end of the day to the deadline is the allowed time: 24 hours here.
    late = due + timedelta(hours=24)
    assert statuses(stock, late, CHICAGO, wanted)[0].severity is Severity.ERROR


@pytest.mark.parametrize("hour", range(24))
def test_where_both_zones_agree_yesterday_is_due_from_the_set_time_of_today(hour: int) -> None:
    deadlines = Deadlines(fresh_by=time(hour, 30))
    for day in (date(2026, 3, 8), date(2026, 11, 1), TODAY):
        due = local(day, hour, 30)
        assert deadlines.last_closed_day(due + timedelta(hours=1), CHICAGO) == day - ONE_DAY
        assert deadlines.last_closed_day(due - timedelta(hours=1), CHICAGO) == day - 2 * ONE_DAY


def test_the_nightly_sync_ticks_when_the_deadlines_expect_it() -> None:
    (sync,) = [it for it in build_automation(Settings()).schedules if it.name == "daily_kpi_sync"]
    assert sync.cron_schedule == f"{NIGHTLY_SYNC.minute} {NIGHTLY_SYNC.hour} * * *"
