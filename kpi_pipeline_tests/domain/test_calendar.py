from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from kpi_pipeline.domain import calendar

CHICAGO = ZoneInfo("America/Chicago")
HOUR = timedelta(hours=1)

SHORT_DAY = date(2026, 3, 8)
LONG_DAY = date(2026, 11, 1)


@pytest.mark.parametrize(
    ("instant", "day"),
    [
        (datetime(2026, 7, 1, 4, 59, 59, tzinfo=UTC), date(2026, 6, 30)),
        (datetime(2026, 7, 1, 5, 0, tzinfo=UTC), date(2026, 7, 1)),
        (datetime(2026, 7, 2, 0, 30, tzinfo=UTC), date(2026, 7, 1)),
        (datetime(2026, 1, 1, 5, 59, 59, tzinfo=UTC), date(2025, 12, 31)),
        (datetime(2026, 1, 1, 6, 0, tzinfo=UTC), date(2026, 1, 1)),
        (datetime(2026, 7, 1, 9, 0, tzinfo=ZoneInfo("Asia/Tokyo")), date(2026, 6, 30)),
    ],
)
def test_the_business_date_changes_at_local_midnight(instant: datetime, day: date) -> None:
    assert calendar.business_date(instant, CHICAGO) == day


def test_a_naive_instant_has_no_business_date() -> None:
    naive = datetime(2026, 7, 1, 12)  # noqa: DTZ001
    with pytest.raises(ValueError, match="no time zone"):
        calendar.business_date(naive, CHICAGO)
    with pytest.raises(ValueError, match="no time zone"):
        calendar.elapsed(date(2026, 7, 1), naive, CHICAGO)


@pytest.mark.parametrize(
    ("day", "start", "hours"),
    [
        (SHORT_DAY, datetime(2026, 3, 8, 6, tzinfo=UTC), 23),
        (SHORT_DAY + timedelta(days=1), datetime(2026, 3, 9, 5, tzinfo=UTC), 24),
        (LONG_DAY, datetime(2026, 11, 1, 5, tzinfo=UTC), 25),
        (LONG_DAY + timedelta(days=1), datetime(2026, 11, 2, 6, tzinfo=UTC), 24),
    ],
)
def test_a_day_is_as_long_as_its_clocks_say(day: date, start: datetime, hours: int) -> None:
    assert calendar.day_start(day, CHICAGO) == start
    assert calendar.day_start(day, CHICAGO).tzinfo is UTC
    assert calendar.day_length(day, CHICAGO) == hours * HOUR


@pytest.mark.parametrize(
    ("zone", "day", "start", "hours"),
    [
        # Midnight is skipped: the day starts at 01:00.
        ("America/Santiago", date(2023, 9, 3), datetime(2023, 9, 3, 4, tzinfo=UTC), 23),
        # Midnight comes twice: the day starts with the first.
        ("America/Havana", date(2023, 11, 5), datetime(2023, 11, 5, 4, tzinfo=UTC), 25),
    ],
)
def test_a_day_starts_at_its_first_instant_where_clocks_change_at_midnight(
    zone: str, day: date, start: datetime, hours: int
) -> None:
    tz = ZoneInfo(zone)
    assert calendar.day_start(day, tz) == start
    assert calendar.day_length(day, tz) == hours * HOUR
    assert calendar.business_date(start, tz) == day
    assert calendar.business_date(start - timedelta(microseconds=1), tz) < day


@pytest.mark.parametrize("day", [SHORT_DAY, LONG_DAY, date(2026, 6, 15)])
def test_the_elapsed_part_runs_from_nothing_to_the_whole_day(day: date) -> None:
    start = calendar.day_start(day, CHICAGO)
    length = calendar.day_length(day, CHICAGO)
    for passed, part in (
        (-HOUR, timedelta(0)),
        (timedelta(0), timedelta(0)),
        (12 * HOUR, 12 * HOUR),
        (length, length),
        (length + HOUR, length),
    ):
        assert calendar.elapsed(day, start + passed, CHICAGO) == part


@pytest.mark.parametrize(
    ("day", "noon_after"), [(SHORT_DAY, 11 * HOUR), (LONG_DAY, 13 * HOUR)], ids=["23 h", "25 h"]
)
def test_noon_comes_early_on_a_short_day_and_late_on_a_long_one(
    day: date, noon_after: timedelta
) -> None:
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=CHICAGO)
    assert calendar.elapsed(day, noon, CHICAGO) == noon_after


@pytest.mark.parametrize("day", [SHORT_DAY, LONG_DAY, date(2026, 12, 31)])
def test_a_day_closes_at_the_next_local_midnight_and_not_before(day: date) -> None:
    end = calendar.day_start(day + timedelta(days=1), CHICAGO)
    length = calendar.day_length(day, CHICAGO)
    assert calendar.elapsed(day, end - timedelta(microseconds=1), CHICAGO) < length
    assert calendar.elapsed(day, end, CHICAGO) == length


@pytest.mark.parametrize(
    ("day", "first", "last", "days", "first_of_previous"),
    [
        (date(2026, 1, 1), date(2026, 1, 1), date(2026, 1, 31), 31, date(2025, 12, 1)),
        (date(2026, 2, 28), date(2026, 2, 1), date(2026, 2, 28), 28, date(2026, 1, 1)),
        (date(2024, 2, 29), date(2024, 2, 1), date(2024, 2, 29), 29, date(2024, 1, 1)),
        (date(2028, 2, 1), date(2028, 2, 1), date(2028, 2, 29), 29, date(2028, 1, 1)),
        (date(2100, 2, 10), date(2100, 2, 1), date(2100, 2, 28), 28, date(2100, 1, 1)),
        (date(2026, 3, 31), date(2026, 3, 1), date(2026, 3, 31), 31, date(2026, 2, 1)),
        (date(2026, 4, 30), date(2026, 4, 1), date(2026, 4, 30), 30, date(2026, 3, 1)),
        (date(2026, 12, 31), date(2026, 12, 1), date(2026, 12, 31), 31, date(2026, 11, 1)),
    ],
)
def test_months_have_their_own_lengths(
    day: date, first: date, last: date, days: int, first_of_previous: date
) -> None:
    assert calendar.first_of_month(day) == first
    assert day.replace(day=calendar.days_in_month(day)) == last
    assert calendar.days_in_month(day) == days
    assert calendar.first_of_previous_month(day) == first_of_previous


def test_days_between_includes_both_ends() -> None:
    assert calendar.days_between(date(2024, 2, 28), date(2024, 3, 1)) == [
        date(2024, 2, 28),
        date(2024, 2, 29),
        date(2024, 3, 1),
    ]
    assert calendar.days_between(date(2026, 1, 1), date(2026, 1, 1)) == [date(2026, 1, 1)]


def test_a_period_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ValueError, match="2026-01-02 to 2026-01-01"):
        calendar.days_between(date(2026, 1, 2), date(2026, 1, 1))


@pytest.mark.parametrize(
    ("first", "fetched_from"),
    [
        (date(2026, 1, 1), date(2025, 12, 1)),
        (date(2026, 5, 31), date(2026, 4, 1)),
        (date(2026, 3, 2), date(2026, 2, 1)),
        # 30 days that end on 1 March begin before February does.
        (date(2026, 3, 1), date(2026, 1, 31)),
        # In a leap year they begin with it.
        (date(2024, 3, 1), date(2024, 2, 1)),
    ],
)
def test_a_fetch_reaches_back_over_the_longest_window_and_all_of_last_month(
    first: date, fetched_from: date
) -> None:
    last = first + timedelta(days=3)
    assert calendar.fetch_period(first, last) == (fetched_from, last)


def test_the_nightly_sync_covers_seven_closed_days_and_today() -> None:
    first, last = calendar.nightly_dates(date(2026, 3, 1))
    assert (first, last) == (date(2026, 2, 22), date(2026, 3, 1))
    assert len(calendar.days_between(first, last)) == 8


def test_a_refresh_covers_yesterday_and_today() -> None:
    assert calendar.nightly_dates(date(2026, 1, 1), closed_days=1) == (
        date(2025, 12, 31),
        date(2026, 1, 1),
    )
