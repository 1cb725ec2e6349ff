"""The variants of statistics: what kind of value a count is, which days and which lines come."""

from datetime import date
from typing import Any

import pytest

from kpi_pipeline_tests.bison_sandbox.running import WORKSPACES, Bison

STATS = f"{WORKSPACES}/stats"
SERIES = f"{WORKSPACES}/line-area-chart-stats"
SCHEDULES = "/api/campaigns/sending-schedules"
# From before the first mail to after today: with days of no event, and days of some zero counts.
PERIOD = {"start_date": "2024-11-25", "end_date": "2026-03-22"}


def lines(bison: Bison, key: str | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = bison.data(SERIES, key=key, **PERIOD)
    return found


def kinds(bison: Bison) -> dict[str, set[type]]:
    """Which kinds of value the counts of each answer are."""
    stats = bison.data(STATS, **PERIOD)
    return {
        "stats": {type(stats[name]) for name in stats if not name.endswith("_percentage")},
        "series": {type(count) for line in lines(bison) for _, count in line["dates"]},
        "plans": {type(row["emails_being_sent"]) for row in bison.data(SCHEDULES, day="today")},
    }


@pytest.mark.parametrize(
    ("counts", "stats", "others"),
    [("documented", str, int), ("text", str, str), ("integers", int, int)],
)
def test_counts_are_texts_or_integers(bison: Bison, counts: str, stats: type, others: type) -> None:
    before = bison.data(STATS, **PERIOD), lines(bison), bison.data(SCHEDULES, day="today")
    bison.variants(counts=counts)
    assert kinds(bison) == {"stats": {stats}, "series": {others}, "plans": {others}}
    after = bison.data(STATS, **PERIOD), lines(bison), bison.data(SCHEDULES, day="today")
    assert as_texts(after) == as_texts(before)


def as_texts(content: object) -> object:
    if isinstance(content, list | tuple):
        return [as_texts(each) for each in content]
    if isinstance(content, dict):
        return {name: as_texts(each) for name, each in content.items()}
    return str(content)


def test_days_without_any_event_may_be_missing_under_every_label(bison: Bison) -> None:
    zeros = lines(bison)
    days = [day for day, _ in zeros[0]["dates"]]
    empty = {
        day for place, day in enumerate(days) if not any(line["dates"][place][1] for line in zeros)
    }
    assert {"2024-11-25", "2026-03-19"} < empty < set(days)
    bison.variants(empty_days="omitted")
    assert lines(bison) == [
        line | {"dates": [point for point in line["dates"] if point[0] not in empty]}
        for line in zeros
    ]


def test_each_label_may_leave_out_the_days_that_are_zero_for_it(bison: Bison) -> None:
    zeros = lines(bison)
    bison.variants(empty_days="omitted_by_label")
    fewer = lines(bison)
    assert fewer == [
        line | {"dates": [point for point in line["dates"] if point[1]]} for line in zeros
    ]
    assert len({len(line["dates"]) for line in fewer}) > 3


def test_the_lines_may_come_in_another_order(bison: Bison) -> None:
    usual = lines(bison)
    bison.variants(labels="shuffled")
    shuffled = lines(bison)
    assert shuffled == lines(bison)
    assert [line["label"] for line in shuffled] != [line["label"] for line in usual]
    assert all(new["label"] != old["label"] for new, old in zip(shuffled, usual, strict=True))
    assert sorted(shuffled, key=str) == sorted(usual, key=str)


def test_the_line_of_the_interested_may_be_missing(bison: Bison) -> None:
    usual = lines(bison)
    bison.variants(labels="one_missing")
    assert lines(bison) == [line for line in usual if line["label"] != "Interested"]


def test_the_lines_of_opens_may_be_missing(bison: Bison) -> None:
    usual = lines(bison)
    bison.variants(labels="no_opens")
    assert lines(bison) == [line for line in usual if "Opens" not in line["label"]]
    assert len(lines(bison)) == 5


@pytest.mark.parametrize("empty_days", ["zeros", "omitted_by_label"])
def test_an_unknown_line_may_come_first_with_other_numbers(bison: Bison, empty_days: str) -> None:
    bison.variants(empty_days=empty_days)
    usual = lines(bison)
    bison.variants(labels="one_unknown")
    unknown, *known = lines(bison)
    assert known == usual
    assert unknown["label"] == "Auto Replies"
    assert len(unknown["dates"]) == (date(2026, 3, 22) - date(2024, 11, 25)).days + 1
    assert all(count > 0 for _, count in unknown["dates"])
