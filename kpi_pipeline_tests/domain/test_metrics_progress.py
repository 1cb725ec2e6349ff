from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.domain.metrics import Target
from kpi_pipeline_tests.domain.facts import NO_TARGETS, computed, facts_of, row_of, target_of


def projected_emails(day: date, as_of: datetime, sent_a_day: int) -> object:
    facts = facts_of(days_between(day.replace(day=1), day), as_of=as_of, sent=sent_a_day)
    return row_of(facts, day)["projection_emails_eom"]


@pytest.mark.parametrize(
    ("day", "as_of", "sent_a_day", "projected"),
    [
        # 14.5 days elapsed at noon: 15 × 290 ÷ 14.5 × 30.
        pytest.param(
            date(2026, 6, 15), datetime(2026, 6, 15, 17, tzinfo=UTC), 290, 9000, id="open"
        ),
        pytest.param(
            date(2026, 6, 15), datetime(2026, 6, 16, 5, tzinfo=UTC), 290, 8700, id="just closed"
        ),
        # 15 days but for a second: 15 × 864,000 ÷ (15 − 1/86,400) × 30.
        pytest.param(
            date(2026, 6, 15),
            datetime(2026, 6, 16, 4, 59, 59, tzinfo=UTC),
            864_000,
            25_920_020,
            id="a second before it closes",
        ),
        pytest.param(
            date(2026, 6, 15), datetime(2026, 6, 14, 12, tzinfo=UTC), 280, 9000, id="not begun"
        ),
        pytest.param(
            date(2026, 6, 1), datetime(2026, 6, 1, 5, 1, tzinfo=UTC), 7, 210, id="first minute"
        ),
        pytest.param(
            date(2026, 6, 1), datetime(2026, 6, 2, 5, tzinfo=UTC), 7, 210, id="first day closed"
        ),
        # 29.5 days elapsed: 30 × 59 ÷ 29.5 × 30.
        pytest.param(
            date(2026, 6, 30), datetime(2026, 6, 30, 17, tzinfo=UTC), 59, 1800, id="last day open"
        ),
        pytest.param(
            date(2026, 6, 30), datetime(2026, 7, 1, 5, tzinfo=UTC), 59, 1770, id="last day closed"
        ),
        # 11 of 23 hours had passed at noon: 800,000 ÷ (7 + 11/23) × 31.
        pytest.param(
            date(2026, 3, 8),
            datetime(2026, 3, 8, 17, tzinfo=UTC),
            100_000,
            3_316_279,
            id="23 hours, open",
        ),
        pytest.param(
            date(2026, 3, 8),
            datetime(2026, 3, 9, 5, tzinfo=UTC),
            100_000,
            3_100_000,
            id="23 hours, closed",
        ),
        # A day of 25 hours that is the first of its month counts as one whole day all along.
        pytest.param(
            date(2026, 11, 1),
            datetime(2026, 11, 2, 5, 30, tzinfo=UTC),
            100_000,
            3_000_000,
            id="25 hours, first of the month, open",
        ),
        # 13 of 25 hours had passed at noon: 200,000 ÷ (1 + 13/25) × 30.
        pytest.param(
            date(2025, 11, 2),
            datetime(2025, 11, 2, 18, tzinfo=UTC),
            100_000,
            3_947_368,
            id="25 hours, open",
        ),
        # After 24 of its 25 hours: 200,000 ÷ (1 + 24/25) × 30.
        pytest.param(
            date(2025, 11, 2),
            datetime(2025, 11, 3, 5, tzinfo=UTC),
            100_000,
            3_061_224,
            id="25 hours, the last one left",
        ),
        pytest.param(
            date(2025, 11, 2),
            datetime(2025, 11, 3, 6, tzinfo=UTC),
            100_000,
            3_000_000,
            id="25 hours, closed",
        ),
    ],
)
def test_a_projection_counts_the_part_of_an_open_day_that_had_passed(
    day: date, as_of: datetime, sent_a_day: int, projected: int
) -> None:
    assert projected_emails(day, as_of, sent_a_day) == projected


def test_only_the_as_of_of_the_metric_date_itself_moves_its_projection() -> None:
    day = date(2026, 6, 2)
    noon = datetime(2026, 6, 2, 17, tzinfo=UTC)
    before = facts_of([date(2026, 6, 1)], as_of=datetime(2026, 6, 1, 8, tzinfo=UTC))
    row = row_of([*before, *facts_of([day], as_of=noon)], day)
    assert row["projection_positive_replies_eom"] == 40


@pytest.mark.parametrize(
    ("day", "replies", "projected"),
    [
        (date(2026, 6, 12), 1, 3),  # 2.5
        (date(2026, 1, 2), 1, 16),  # 15.5
        (date(2026, 6, 13), 1, 2),  # 2.31
        (date(2026, 6, 11), 1, 3),  # 2.73
        (date(2026, 6, 20), 3, 5),  # 4.5
        (date(2026, 6, 20), 0, 0),
    ],
)
def test_a_projection_is_rounded_half_up(day: date, replies: int, projected: int) -> None:
    days = dict.fromkeys(days_between(day.replace(day=1), day), 0) | {day: replies}
    assert row_of(facts_of(days), day)["projection_positive_replies_eom"] == projected


@pytest.mark.parametrize(
    ("replies", "target", "progress"),
    [
        (1, 800, "0.13"),  # 0.125
        (3, 800, "0.38"),  # 0.375
        (1, 3, "33.33"),
        (2, 3, "66.67"),
        (1, 1_000_000, "0.00"),
        (0, 50, "0.00"),
        (5000, 1, "500000.00"),
    ],
)
def test_progress_has_two_places_rounded_half_up(replies: int, target: int, progress: str) -> None:
    day = date(2026, 6, 1)
    value = row_of(facts_of({day: replies}), day, target_of(target))["mtd_leads_progress"]
    assert str(value) == progress


def test_progress_of_the_projection_is_that_of_the_rounded_number_beside_it() -> None:
    day = date(2026, 6, 12)
    days = dict.fromkeys(days_between(day.replace(day=1), day), 0) | {day: 1}
    row = row_of(facts_of(days), day, target_of(8))
    assert row["projection_positive_replies_eom"] == 3
    assert row["projection_replies_progress"] == Decimal("37.50")


@pytest.mark.parametrize(
    ("targets", "shown"),
    [
        pytest.param(NO_TARGETS, None, id="never set"),
        pytest.param(target_of(0), 0, id="zero"),
        pytest.param(target_of(None), None, id="taken back"),
        pytest.param(target_of(50, date(2026, 7, 1)), None, id="only from next month on"),
        pytest.param(target_of(50, workspace="birch-co"), None, id="another client's"),
    ],
)
def test_without_a_target_progress_is_null(targets: list[Target], shown: int | None) -> None:
    day = date(2026, 6, 30)
    row = row_of(facts_of(days_between(date(2026, 6, 1), day)), day, targets)
    assert row["monthly_kpi_target"] == shown
    assert row["positive_replies_mtd"] == 30
    assert row["mtd_leads_progress"] is None
    assert row["projection_replies_progress"] is None


def test_a_past_month_keeps_its_target_when_the_target_changes() -> None:
    facts = facts_of(days_between(date(2026, 4, 1), date(2026, 7, 1)))
    targets = [
        *target_of(None, date(2026, 7, 1)),
        *target_of(200, date(2026, 6, 1)),
        *target_of(100, date(2026, 4, 1)),
    ]
    dates = [date(2026, 4, 1), date(2026, 5, 31), date(2026, 6, 1), date(2026, 7, 1)]
    rows = computed(facts, dates, targets)
    assert [row.monthly_kpi_target for row in rows] == [100, 100, 200, None]
    assert [str(row.mtd_leads_progress) for row in rows] == ["1.00", "31.00", "0.50", "None"]


@pytest.mark.parametrize(
    ("week_before", "last_week", "growth"),
    [
        (0, 0, None),
        (0, 25, None),
        (25, 25, "0.00"),
        (4, 0, "-100.00"),
        (3, 2, "-33.33"),
        (3, 1, "-66.67"),
        (1, 500, "49900.00"),
        (800, 801, "0.13"),  # 0.125
        (800, 799, "-0.13"),  # -0.125
        (1_000_000, 999_999, "0.00"),
    ],
)
def test_growth_compares_the_last_7_days_with_the_7_before(
    week_before: int, last_week: int, growth: str | None
) -> None:
    day = date(2026, 6, 20)
    days = dict.fromkeys(days_between(day - timedelta(days=13), day), 0)
    days |= {day - timedelta(days=7): week_before, day - timedelta(days=6): last_week}
    value = row_of(facts_of(days), day)["last_week_vs_week_before_progress"]
    assert value == (None if growth is None else Decimal(growth))
    assert growth is None or str(value) == growth
