"""The numbers computed a second way, with fractions and day by day, to compare with."""

import math
import random
from calendar import monthrange
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from kpi_pipeline.domain import calendar, columns
from kpi_pipeline.domain.metrics import DailyFact, Target, compute
from kpi_pipeline_tests.domain.facts import CHICAGO

BOUNDARY_DAYS = [
    date(2024, 2, 29),
    date(2024, 3, 1),
    date(2025, 11, 2),
    date(2026, 1, 1),
    date(2026, 2, 28),
    date(2026, 3, 8),
    date(2026, 3, 31),
    date(2026, 6, 15),
    date(2026, 11, 1),
    date(2026, 12, 31),
]


@dataclass(frozen=True)
class Fact:
    counts: Mapping[str, int]
    as_of: datetime


@dataclass(frozen=True)
class Case:
    facts: Mapping[tuple[str, date], Fact]
    targets: Mapping[tuple[str, date], tuple[int | None, int | None]]
    dates: list[date]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    anchor = draw(st.sampled_from(BOUNDARY_DAYS))
    # Hypothesis draws what decides between cases; mere counts come from a seed, for speed.
    chance = random.Random(draw(st.integers(0, 2**32)))
    most = draw(st.sampled_from([1, 3, 20_000]))
    span = calendar.days_between(anchor - timedelta(days=70), anchor + timedelta(days=2))
    facts = {}
    targets = {}
    for workspace in draw(st.lists(st.sampled_from(["acorn", "birch"]), min_size=1, unique=True)):
        gaps = draw(st.sets(st.sampled_from(span[:-2]), max_size=2))
        for day in span:
            if day not in gaps:
                # From an hour before the day to three days after its start.
                passed = timedelta(microseconds=chance.randint(-3600, 3 * 86400) * 10**6 + 999_999)
                facts[workspace, day] = Fact(
                    {name: chance.randint(0, most) for name in columns.FACT_COUNTS},
                    calendar.day_start(day, CHICAGO) + passed,
                )
        for months_back in draw(st.sets(st.integers(-1, 3))):
            month = anchor.year * 12 + anchor.month - 1 - months_back
            holds_from = date(month // 12, month % 12 + 1, 1)
            targets[workspace, holds_from] = (
                draw(st.sampled_from([None, 0, 1, 7, 300])),
                draw(st.sampled_from([None, 0, 999])),
            )
    dates = [anchor + timedelta(days=offset) for offset in draw(st.sets(st.integers(-40, 4)))]
    return Case(facts, targets, [*dates, anchor])


def half_up(value: Fraction) -> int:
    return math.floor(abs(value) + Fraction(1, 2)) * (-1 if value < 0 else 1)


def percent(part: int | None, whole: int | None) -> Decimal | None:
    if part is None or not whole:
        return None
    return Decimal(half_up(Fraction(part, whole) * 10_000)) / Decimal(100)


def expected(case: Case, workspace: str, day: date) -> dict[str, object]:
    fact = case.facts[workspace, day]
    days_in_month = monthrange(day.year, day.month)[1]
    month_start = date(day.year, day.month, 1)
    last_month_days = (month_start - timedelta(days=1)).day

    def total(name: str, last: date, length: int) -> int | None:
        known = [case.facts.get((workspace, last - timedelta(days=back))) for back in range(length)]
        return sum(it.counts[name] for it in known if it) if all(known) else None

    passed = calendar.elapsed(day, fact.as_of, CHICAGO) // timedelta(seconds=1)
    length = calendar.day_length(day, CHICAGO) // timedelta(seconds=1)
    elapsed = max(Fraction(1), day.day - 1 + Fraction(passed, length))

    def projection(so_far: int | None) -> int | None:
        return None if so_far is None else half_up(so_far / elapsed * days_in_month)

    sent, replies = (total(name, day, day.day) for name in ("sent", "interested"))
    last_week = total("interested", day, 7)
    week_before = total("interested", day - timedelta(days=7), 7)
    held = [since for name, since in case.targets if name == workspace and since <= month_start]
    target, sending_target = case.targets[workspace, max(held)] if held else (None, None)
    all_replies, bounced = (total(name, day, day.day) for name in ("replied", "bounced"))
    known_weeks = last_week is not None and week_before is not None
    return {
        "workspace": workspace,
        "metric_date": day,
        "emails_sent_mtd": sent,
        "positive_replies_mtd": replies,
        "all_replies_mtd": all_replies,
        "bounced_mtd": bounced,
        "unsubscribed_mtd": total("unsubscribed", day, day.day),
        "emails_sent_today": fact.counts["sent"],
        "positive_replies_today": fact.counts["interested"],
        **{f"emails_sent_last_{n}_days": total("sent", day, n) for n in (7, 14, 30)},
        **{f"positive_replies_last_{n}_days": total("interested", day, n) for n in (7, 14, 30)},
        "positive_replies_last_month": total(
            "interested", month_start - timedelta(days=1), last_month_days
        ),
        "positive_replies_current_month": replies,
        "projection_positive_replies_eom": projection(replies),
        "projection_emails_eom": projection(sent),
        "mtd_leads_progress": percent(replies, target),
        "projection_replies_progress": percent(projection(replies), target),
        "last_week_vs_week_before_progress": (
            percent((last_week or 0) - (week_before or 0), week_before) if known_weeks else None
        ),
        "sending_progress": percent(sent, sending_target),
        "projection_sending_progress": percent(projection(sent), sending_target),
        "reply_rate_mtd": percent(all_replies, sent),
        "positive_rate_mtd": percent(replies, sent),
        "bounce_rate_mtd": percent(bounced, sent),
        "monthly_kpi_target": target,
        "monthly_sending_target": sending_target,
        "as_of": fact.as_of.astimezone(UTC),
    }


@given(cases())
@settings(deadline=None)
def test_the_numbers_agree_with_a_plain_count_day_by_day(case: Case) -> None:
    facts = [
        DailyFact(workspace, day, **fact.counts, as_of=fact.as_of)
        for (workspace, day), fact in case.facts.items()
    ]
    targets = [Target(*key, *both) for key, both in case.targets.items()]
    rows = compute(facts, targets, case.dates, CHICAGO)
    assert [asdict(row) for row in rows] == [
        expected(case, workspace, day) for workspace, day in sorted(case.facts) if day in case.dates
    ]
