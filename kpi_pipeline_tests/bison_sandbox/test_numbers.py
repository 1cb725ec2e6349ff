from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from bison_sandbox.world.agency import Profile, build_agency
from bison_sandbox.world.clock import Clock, Days
from bison_sandbox.world.numbers import NOTHING, Day, Numbers, Rules, total
from kpi_pipeline_tests.bison_sandbox.running import TODAY

CHICAGO = ZoneInfo("America/Chicago")
PROFILES = [client.profile for client in build_agency(7, 26, TODAY)]
NOON = datetime(2026, 3, 18, 12, tzinfo=CHICAGO)
REVISED = ("replied", "bounced")


@pytest.fixture
def numbers() -> Numbers:
    return Numbers(7, lambda _: Days(CHICAGO))


def one_day(numbers: Numbers, profile: Profile, day: date, now: datetime) -> Day:
    return numbers.series(profile, day, day, now)[0]


def hours(day: date, step_minutes: int = 30) -> Iterator[datetime]:
    start = datetime(day.year, day.month, day.day, tzinfo=CHICAGO).astimezone(UTC)
    instant = start
    while instant.astimezone(CHICAGO).date() == day:
        yield instant
        instant += timedelta(minutes=step_minutes)


def test_the_agency_sends_what_a_real_one_of_its_size_sends(numbers: Numbers) -> None:
    first, last = date(2025, 10, 1), date(2025, 10, 31)
    month = total(day for each in PROFILES for day in numbers.series(each, first, last, NOON))
    assert 900_000 < month.sent < 1_080_000
    assert 0.002 < month.replied / month.sent < 0.004
    assert 0.0006 < month.interested / month.sent < 0.0015
    assert 0.01 < month.bounced / month.sent < 0.02


def test_the_largest_client_sends_eight_to_ten_thousand_a_weekday(numbers: Numbers) -> None:
    largest = max(PROFILES, key=lambda profile: profile.mails)
    first = date(2025, 9, 1)
    for offset, day in enumerate(numbers.series(largest, first, date(2025, 12, 31), NOON)):
        if (first + timedelta(days=offset)).weekday() < 5:
            assert 8_000 <= day.sent <= 10_000


def test_weekends_are_near_zero_and_some_are_zero(numbers: Numbers) -> None:
    sunday = date(2025, 11, 2)
    sundays = [one_day(numbers, profile, sunday, NOON) for profile in PROFILES]
    assert 0 < sum(day.sent for day in sundays) < 1_000
    assert any(day.sent == 0 for day in sundays)


def test_a_count_is_never_more_than_what_it_is_part_of() -> None:
    # A lead that counts on the day of its marking may have replied the day before.
    numbers = Numbers(7, lambda _: Days(CHICAGO), lambda: Rules("reply"))
    for profile in PROFILES:
        for day in numbers.series(profile, date(2025, 1, 1), TODAY, NOON):
            assert 0 <= day.interested <= day.replied <= day.sent
            assert 0 <= day.unique_opens <= day.total_opens
            assert min(day) >= 0
            assert day.bounced <= day.sent


def test_days_before_the_start_and_after_today_hold_nothing(numbers: Numbers) -> None:
    late = max(PROFILES, key=lambda profile: profile.start)
    before = numbers.series(late, date(2024, 1, 1), late.start - timedelta(days=1), NOON)
    after = numbers.series(late, TODAY + timedelta(days=1), TODAY + timedelta(days=9), NOON)
    assert set(before) == set(after) == {NOTHING}
    since = numbers.series(late, late.start, TODAY, NOON)
    assert sum(day.sent for day in since) > 0


def test_recent_days_are_revised_upwards_and_settle_after_seven_days(numbers: Numbers) -> None:
    revised = dict.fromkeys(REVISED, False)
    for profile in PROFILES:
        day = date(2026, 2, 11)
        shown = [
            one_day(numbers, profile, day, NOON - timedelta(days=35 - a)) for a in range(1, 12)
        ]
        for before, after in pairwise(shown):
            assert before.sent == after.sent
            for count in REVISED:
                assert getattr(before, count) <= getattr(after, count)
                revised[count] |= getattr(before, count) < getattr(after, count)
        assert len(set(shown[6:])) == 1
    assert all(revised.values())


def test_a_revision_can_still_come_on_the_seventh_day(numbers: Numbers) -> None:
    day = date(2026, 2, 11)
    sixth, seventh = (datetime(2026, 2, 11 + age, 12, tzinfo=CHICAGO) for age in (6, 7))
    assert any(
        one_day(numbers, each, day, sixth) != one_day(numbers, each, day, seventh)
        for each in PROFILES
    )


def test_a_closed_day_is_shown_alike_all_through_one_business_day(numbers: Numbers) -> None:
    yesterday = TODAY - timedelta(days=1)
    for profile in PROFILES[:5]:
        shown = {one_day(numbers, profile, yesterday, instant) for instant in hours(TODAY, 120)}
        assert len(shown) == 1


@pytest.mark.parametrize("day", [TODAY, date(2026, 3, 8), date(2025, 11, 2)])
def test_today_grows_from_zero_to_what_it_closes_with(numbers: Numbers, day: date) -> None:
    midnight = datetime(day.year, day.month, day.day, tzinfo=CHICAGO) + timedelta(days=1)
    for profile in PROFILES:
        shown = [one_day(numbers, profile, day, instant) for instant in hours(day)]
        assert shown[0] == NOTHING
        for before, after in pairwise(shown):
            assert all(x <= y for x, y in zip(before, after, strict=True))
        last = one_day(numbers, profile, day, midnight - timedelta(seconds=1))
        closed = one_day(numbers, profile, day, midnight)
        assert last.sent == closed.sent
        assert last.unsubscribed == closed.unsubscribed
        assert last.interested <= closed.interested


def test_quiet_clients_have_no_interested_reply_and_do_send(numbers: Numbers) -> None:
    quiet = [profile for profile in PROFILES if profile.quiet_phase is not None]
    assert len(quiet) == 3
    day = date(2025, 11, 4)
    silent = [profile for profile in quiet if profile.is_quiet_on(day)]
    assert silent
    for profile in silent:
        counts = one_day(numbers, profile, day, NOON)
        assert counts.sent > 0
        assert counts.interested == 0


def test_the_wall_clock_of_another_day_is_the_real_one_across_a_change_of_clocks() -> None:
    real = datetime(2026, 1, 14, 15, 30, tzinfo=CHICAGO)
    clock = Clock(CHICAGO, date(2026, 7, 1), lambda: real.astimezone(UTC))
    assert clock.now() == datetime(2026, 7, 1, 15, 30, tzinfo=CHICAGO)


def test_without_a_day_of_choice_the_clock_tells_the_real_time() -> None:
    real = datetime(2026, 3, 18, 3, 30, tzinfo=UTC)
    clock = Clock(CHICAGO, None, lambda: real)
    assert clock.now() == real
    assert clock.today() == date(2026, 3, 17)
