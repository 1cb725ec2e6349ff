"""Charts of lines and of days, for numbers that nobody expects as well."""

import re
import xml.etree.ElementTree as ET
from datetime import date
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpi_pipeline.dashboard.charts_month import (
    Bar,
    Line,
    axis,
    bar_chart,
    line_chart,
    short,
    spread,
)
from kpi_pipeline.dashboard.client_view import daily_chart, month_chart
from kpi_pipeline.db.dashboard.client import NUMBERS, StoredDay
from kpi_pipeline.domain.calendar import days_between, days_in_month

_HUGE = 10**12


def drawn(chart: str) -> list[ET.Element]:
    """The two drawings of a chart, which must be well-formed."""
    return ET.fromstring(f"<div>{chart}</div>").findall(".//svg")


def labels(svg: ET.Element) -> dict[str, tuple[float, float]]:
    return {str(it.text): (float(it.attrib["x"]), float(it.attrib["y"])) for it in svg.iter("text")}


def numbers_in(svg: ET.Element) -> list[float]:
    """Every coordinate and size of a drawing."""
    names = ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height")
    found = [float(it.attrib[name]) for it in svg.iter() for name in names if name in it.attrib]
    for line in svg.iter("polyline"):
        found += [float(it) for it in re.split(r"[ ,]", line.attrib["points"])]
    for path in svg.iter("path"):
        found += [float(it) for it in re.findall(r"[\d.]+", path.attrib["d"])]
    return found


def boxes(svg: ET.Element, style: str) -> list[tuple[float, ...]]:
    """Left, top, width and height of each rectangle of a path."""
    return [
        tuple(float(it) for it in box)
        for path in svg.iter("path")
        if path.attrib["class"] == style
        for box in re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)v([\d.]+)h", path.attrib["d"])
    ]


def stored(day: date, **numbers: int | Decimal | None) -> StoredDay:
    return StoredDay(day, {**dict.fromkeys(NUMBERS), **numbers}, None, "sync", None)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 0, [0, 1]),
        (0, 3, [0, 1, 2, 3]),
        (0, 90, [0, 25, 50, 75]),
        (0, 300, [0, 100, 200, 300]),
        (-7, 12, [-10, -5, 0, 5, 10]),
        (0, 2_600_000, [0, 1_000_000, 2_000_000]),
    ],
)
def test_an_axis_has_few_round_numbers(low: int, high: int, ticks: list[int]) -> None:
    assert axis(low, high) == ticks


@given(st.floats(-1e13, 1e13), st.floats(-1e13, 1e13))
def test_an_axis_is_short_and_holds_0_for_any_numbers(low: float, high: float) -> None:
    ticks = axis(min(low, high), max(low, high))
    assert 2 <= len(ticks) <= 7
    assert 0 in ticks
    assert len({after - before for before, after in pairwise(ticks)}) == 1


@given(st.lists(st.floats(-50, 400), max_size=8))
def test_labels_never_overlap_while_there_is_room(wanted: list[float]) -> None:
    placed = spread(wanted, 0, 300, 15)
    assert len(placed) == len(wanted)
    assert all(-0.01 <= it <= 300.01 for it in placed)
    assert all(after - before >= 14.99 for before, after in pairwise(sorted(placed)))
    # Their order stays that of the lines.
    order = sorted(range(len(wanted)), key=lambda it: (wanted[it], placed[it]))
    assert [placed[it] for it in order] == sorted(placed)


def test_more_labels_than_there_is_room_for_are_evenly_spread() -> None:
    assert spread([5.0] * 5, 0, 8, 15) == [0, 2, 4, 6, 8]
    assert spread([], 0, 8, 15) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (300, "300"),
        (1_500, "1.5k"),
        (-20_000, "−20k"),
        (2_000_000, "2M"),
        (1_234, "1,234"),
    ],
)
def test_numbers_of_an_axis_are_short(value: int, text: str) -> None:
    assert short(value) == text


_VALUES = st.one_of(st.none(), st.integers(-_HUGE, _HUGE), st.integers(0, 40))


@given(
    st.lists(_VALUES, min_size=1, max_size=31),
    st.one_of(st.none(), st.integers(-5, _HUGE)),
    st.one_of(st.none(), st.integers(0, _HUGE)),
)
def test_a_month_is_drawn_whatever_its_numbers_are(
    values: list[int | None], target: int | None, projection: int | None
) -> None:
    first = date(2026, 1, 1)
    days = {
        first.replace(day=number): stored(
            first.replace(day=number),
            positive_replies_mtd=value,
            positive_replies_today=value,
            monthly_kpi_target=target,
            projection_positive_replies_eom=projection,
        )
        for number, value in enumerate(values, start=1)
    }
    last = max(days)
    for chart in (
        month_chart(days, last),
        daily_chart(days, last, "positive_replies_today", "Positive replies", first),
    ):
        assert not re.search("nan|inf", chart)
        for svg in drawn(chart):
            assert svg.attrib["role"] == "img"
            assert svg.attrib["aria-label"]
            width, height = (float(it) for it in svg.attrib["viewBox"].split()[2:])
            assert all(-1 <= it <= max(width, height) + 1 for it in numbers_in(svg))


def test_the_month_chart_says_in_words_what_it_shows() -> None:
    days = {
        day: stored(
            day,
            positive_replies_mtd=10 * day.day + (0 if day.month == 11 else 2),
            monthly_kpi_target=300,
            projection_positive_replies_eom=292,
        )
        for day in days_between(date(2026, 10, 1), date(2026, 11, 27))
    }
    wide, narrow = drawn(month_chart(days, date(2026, 11, 27)))
    for svg in (wide, narrow):
        assert svg.attrib["aria-label"] == (
            "Positive replies of November 2026, cumulative: 270 until day 27, projected 292, "
            "target 300, the month before 312"
        )
        places = labels(svg)
        ends = ["October 312", "target 300", "projected 292"]
        heights = [places[it][1] for it in ends]
        assert all(after - before >= 14.9 for before, after in pairwise(heights))
        assert len({places[it][0] for it in ends}) == 1, "at the edge, under one another"
        assert "270" in places


def test_a_month_that_is_over_has_no_projection() -> None:
    day = date(2026, 10, 31)
    days = {day: stored(day, positive_replies_mtd=9, projection_positive_replies_eom=9)}
    svg, _ = drawn(month_chart(days, day))
    assert "October 9" in labels(svg)
    assert not any("projected" in it for it in labels(svg))
    assert "no target" in svg.attrib["aria-label"]


@pytest.mark.parametrize("month", [date(2024, 2, 1), date(2026, 2, 1), date(2026, 12, 1)])
def test_a_month_and_the_one_before_share_an_axis_as_long_as_the_longer(month: date) -> None:
    last = month.replace(day=days_in_month(month))
    days = {
        day: stored(day, positive_replies_mtd=day.day)
        for day in days_between(date(month.year - 1, 11, 1), last)
    }
    svg, _ = drawn(month_chart(days, last))
    assert "31" in labels(svg)
    assert f"{last:%B} {last.day}" in labels(svg)


def test_a_day_between_two_gaps_is_a_dot() -> None:
    chart = line_chart([Line("line", "", [(1, None), (2, 5), (3, None)])], 30, "x")
    svg, _ = drawn(chart)
    assert not list(svg.iter("polyline"))
    assert [it.attrib["class"] for it in svg.iter("circle")] == ["dot-line"]


def test_text_from_outside_stays_text() -> None:
    name = '<script>alert(1)</script>" onload="x'
    chart = line_chart([Line("series s1", name, [(1, 1), (2, 2)])], 30, name, texts=[name])
    bars = bar_chart([Bar(1, name), Bar(None, name, name)], name)
    assert "<script>" not in chart + bars
    assert drawn(chart)[0].attrib["aria-label"] == name


def test_a_correction_below_0_is_a_bar_below_the_line() -> None:
    svg, _ = drawn(bar_chart([Bar(4, "four"), Bar(-2, "minus two"), Bar(0, "none")], "x"))
    above, below = boxes(svg, "bar")
    assert below[1] == pytest.approx(above[1] + above[3], abs=0.11)
    assert above[3] == pytest.approx(2 * below[3], abs=0.2)


def test_a_long_gap_has_its_reason_as_its_label_and_a_short_one_a_dash() -> None:
    bars = [
        Bar(1, "1"),
        *[Bar(None, "", "never fetched")] * 20,
        Bar(1, "1"),
        Bar(None, "", "no row"),
    ]
    svg, _ = drawn(bar_chart(bars + [Bar(2, "2")] * 60, "x"))
    assert "never fetched" in labels(svg)
    assert "–" in labels(svg)
    assert len([it for it in svg.iter("rect") if it.attrib["class"] == "gap"]) == 2


def test_weekends_are_shaded() -> None:
    days = {
        day: stored(day, emails_sent_today=5)
        for day in days_between(date(2026, 1, 1), date(2026, 3, 31))
    }
    chart = daily_chart(
        days, date(2026, 3, 31), "emails_sent_today", "Emails sent", date(2026, 1, 1)
    )
    svg, _ = drawn(chart)
    assert len(boxes(svg, "weekend")) == 26
    assert len(boxes(svg, "bar")) == 90
