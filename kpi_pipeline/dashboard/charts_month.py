"""Charts of one month, and of the days before: plain SVG, drawn on the server.

Colours are classes of `client.css`, so that the same drawing serves dark and light screens and
paper. Each chart is drawn twice, for wide and for narrow screens, as its text would be too small on
a phone otherwise; the style sheet shows one of them. A table on the page has all numbers, too.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import floor, log10

from markupsafe import Markup, escape

_NARROW = 340
_LETTER = 6.6
_LABEL_GAP = 15.0
_HEIGHT = 250
_TOP, _BOTTOM = 22.0, 28.0


@dataclass(frozen=True)
class Line:
    """One line over the days of a month.

    `points` are (day, value) in order, from (0, 0) on for a line that begins with the month. None
    is a gap. `style` is the class of the line, and `label` the text for its end: at the edge of the
    chart, or close to the end itself for a line `within` it.
    """

    style: str
    label: str
    points: Sequence[tuple[int, float | None]]
    within: bool = False


@dataclass(frozen=True)
class Bar:
    """One day of a chart of days: its value, or None for a gap, with its reason.

    `text` says all of it, for a pointer that rests on the day. `tick` is a label under the day.
    """

    value: int | None
    text: str
    reason: str = ""
    tick: str = ""
    weekend: bool = False


def line_chart(
    lines: Sequence[Line], days: int, summary: str, *, texts: Sequence[str] = (), wide: int = 760
) -> Markup:
    """Lines over the `days` of a month, each with its label at its end.

    `summary` says in words what the chart shows, and `texts` what is known of each day.
    """
    return _in_both_widths(lambda width: _lines(lines, days, summary, texts, width), wide)


def bar_chart(bars: Sequence[Bar], summary: str, wide: int = 1200) -> Markup:
    """A bar for each day, shaded weekends, and gaps that are no bars of 0."""
    return _in_both_widths(lambda width: _bars(bars, summary, width), wide)


def axis(low: float, high: float, most: int = 5) -> list[int]:
    """Round numbers in equal steps, at most `most` of them, from `low` or below to `high`.

    The last may be below `high`, by less than a step. They include 0, and are at least two.
    """
    low, high = min(0.0, low), max(1.0, high)
    step = max(1, _round_step((high - low) / (most - 1)))
    return list(range(floor(low / step) * step, floor(high / step) * step + 1, step)) or [0, 1]


def spread(wanted: Sequence[float], low: float, high: float, gap: float) -> list[float]:
    """Places as near to `wanted` as possible, from `low` to `high`, at least `gap` apart.

    Where there is no room for all, they are evenly spread.
    """
    if not wanted:
        return []
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda it: wanted[it])
    placed = [0.0] * len(wanted)
    lowest = low
    for it in order:
        placed[it] = lowest = max(wanted[it], lowest)
        lowest += gap
    highest = high
    for it in reversed(order):
        placed[it] = highest = min(placed[it], highest)
        highest -= gap
    return placed


def short(value: float) -> str:
    """A number of an axis: 300, 12k, 1.5M."""
    for unit, letter in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "k")):
        if abs(value) >= unit and value % (unit / 10) == 0:
            return f"{value / unit:g}{letter}".replace("-", "−")
    return f"{value:,.0f}".replace("-", "−")


def _round_step(rough: float) -> int:
    if rough <= 1:
        return 1
    power = int(10 ** floor(log10(rough)))
    steps = (power, 2 * power, 5 * power // 2, 5 * power, 10 * power)
    return next(it for it in steps if it >= rough * 0.999)


def _in_both_widths(draw: Callable[[int], Iterable[str]], wide: int) -> Markup:
    drawings = [("wide", "".join(draw(wide))), ("narrow", "".join(draw(_NARROW)))]
    text = "".join(f'<div class="chart {name}">{it}</div>' for name, it in drawings)
    return Markup(text)  # noqa: S704 - its text is escaped where it is put in


def _svg(width: float, height: float, summary: str, parts: Iterable[str]) -> Iterator[str]:
    box = f"0 0 {width:g} {height:g}"
    yield f'<svg viewBox="{box}" role="img" aria-label="{escape(summary)}">'
    yield from parts
    yield "</svg>"


@dataclass(frozen=True)
class _Frame:
    """Where days and values are in a chart of lines."""

    left: float
    right: float
    days: int
    low: float
    high: float

    def x(self, day: float) -> float:
        return self.left + (self.right - self.left) * day / max(1, self.days)

    def y(self, value: float) -> float:
        height = _HEIGHT - _TOP - _BOTTOM
        return _HEIGHT - _BOTTOM - height * (value - self.low) / (self.high - self.low)


def _lines(
    lines: Sequence[Line], days: int, summary: str, texts: Sequence[str], width: int
) -> Iterator[str]:
    most_letters = 26 if width > _NARROW else 13
    known = [value for line in lines for _, value in line.points if value is not None]
    ticks = axis(min(known, default=0), max(known, default=0))
    low, high = min([*known, ticks[0]]), max([*known, ticks[-1], 1])
    left = 10 + _LETTER * max(len(short(it)) for it in ticks)
    letters = max((len(_cut(line.label, most_letters)) for line in lines), default=0)
    frame = _Frame(left, width - 12 - _LETTER * letters, days, low, high)
    said = texts if width > _NARROW else ()
    return _svg(width, _HEIGHT, summary, _line_parts(lines, said, frame, ticks, most_letters))


def _line_parts(
    lines: Sequence[Line], texts: Sequence[str], frame: _Frame, ticks: Sequence[int], letters: int
) -> Iterator[str]:
    for tick in ticks:
        y = frame.y(tick)
        yield _grid_line(frame.left, frame.right, y)
        yield _text(frame.left - 8, y + 4, short(tick), "end")
    marks = [1, *(day for day in range(5, frame.days + 1, 5) if day < frame.days - 2), frame.days]
    for day in marks:
        yield _text(frame.x(day), _HEIGHT - 8, str(day), "middle")
    if not lines:
        middle = (frame.left + frame.right) / 2
        yield _text(middle, _HEIGHT / 2, "no numbers yet", "middle")
    for line in lines:
        yield from _line(line, frame)
    yield from _end_labels(lines, frame, letters)
    width, height = frame.x(1) - frame.x(0), _HEIGHT - _TOP - _BOTTOM
    for day, said in enumerate(texts, start=1):
        yield _hover(frame.x(day - 0.5), _TOP, width, height, said)


def _line(line: Line, frame: _Frame) -> Iterator[str]:
    """A polyline for each run of known points; a point that stands alone is a dot."""
    for known, run in groupby(line.points, key=lambda it: it[1] is not None):
        if not known:
            continue
        places = [(frame.x(day), frame.y(value)) for day, value in run if value is not None]
        if len(places) == 1:
            yield _dot(*places[0], line.style)
        else:
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            yield f'<polyline class="{line.style}" points="{points}"/>'


def _end_labels(lines: Sequence[Line], frame: _Frame, letters: int) -> Iterator[str]:
    ends = [
        (line, end)
        for line in lines
        if line.label
        and (end := next((it for it in reversed(line.points) if it[1] is not None), None))
    ]
    at_edge = [it for it in ends if not it[0].within]
    # Labels of lines that all end on one day stand beside that day.
    days = {day for _, (day, _) in at_edge}
    edge = frame.x(days.pop() if len(days) == 1 else frame.days) + 8
    wanted = [frame.y(float(value or 0)) + 4 for _, (_, value) in at_edge]
    places = spread(wanted, _TOP - 6, _HEIGHT - _BOTTOM + 4, _LABEL_GAP)
    for (line, _), y in zip(at_edge, places, strict=True):
        yield _text(edge, y, _cut(line.label, letters), "start", line.style)
    for line, (day, value) in ends:
        x, y, label = frame.x(day), frame.y(float(value or 0)), _cut(line.label, letters)
        yield _dot(x, y, line.style)
        if line.within and x + 8 + len(label) * _LETTER < frame.right:
            yield _text(x + 7, min(y + 15, _HEIGHT - _BOTTOM - 5), label, "start", line.style)
        elif line.within:
            yield _text(x - 6, max(y - 8, _TOP), label, "end", line.style)


def _bars(bars: Sequence[Bar], summary: str, width: int) -> Iterator[str]:
    height, top, bottom = 150.0, 16.0, 22.0
    values = [bar.value for bar in bars if bar.value is not None]
    low, high = min([0, *values]), max([1, *values])
    # The same for all charts of days, whose days stand under one another then.
    left = 10 + _LETTER * max(6, len(short(high)))
    slot = (width - left) / max(1, len(bars))
    scale = (height - top - bottom) / (high - low)
    zero = height - bottom + low * scale

    def parts() -> Iterator[str]:
        inside = height - top - bottom
        lefts = [left + place * slot for place in range(len(bars))]
        weekends = [x for x, bar in zip(lefts, bars, strict=True) if bar.weekend]
        yield _boxes("weekend", ((x, top, slot, inside) for x in weekends))
        if values:
            yield _text(left - 6, zero - high * scale + 4, short(high), "end")
        yield _text(left - 6, zero + 4, "0", "end")
        yield _grid_line(left, width, zero)
        yield from _gaps(bars, left, slot, top, inside)
        heights = [(x, bar.value * scale) for x, bar in zip(lefts, bars, strict=True) if bar.value]
        yield _boxes(
            "bar", ((x + slot * 0.1, zero - max(0, it), slot * 0.8, abs(it)) for x, it in heights)
        )
        for x, bar in zip(lefts, bars, strict=True):
            if width > _NARROW:
                yield _hover(x, top, slot, inside, bar.text)
            if bar.tick:
                yield _text(min(x + slot / 2, width - 16), height - 5, bar.tick, "middle")

    return _svg(width, height, summary, parts())


def _gaps(
    bars: Sequence[Bar], left: float, slot: float, top: float, height: float
) -> Iterator[str]:
    """A frame around days without a number: never a bar of 0. Its label is the reason."""
    place = 0
    for (missing, reason), run in groupby(bars, key=lambda it: (it.value is None, it.reason)):
        length = len(list(run))
        if missing:
            x, width = left + place * slot, length * slot
            yield f'<rect class="gap" {_sides(x, top, width, height)}/>'
            fits = len(reason) * _LETTER < width
            yield _text(x + width / 2, top + height / 2 + 4, reason if fits else "–", "middle")
        place += length


def _boxes(style: str, boxes: Iterable[tuple[float, float, float, float]]) -> str:
    """Rectangles (left, top, width, height) as one path: there are hundreds."""
    parts = [
        f"M{x:.1f} {y:.1f}h{width:.1f}v{height:.1f}h-{width:.1f}z" for x, y, width, height in boxes
    ]
    return f'<path class="{style}" d="{"".join(parts)}"/>' if parts else ""


def _hover(x: float, y: float, width: float, height: float, words: str) -> str:
    """An area that says something where a pointer rests; phones have none."""
    sides = _sides(x, y, width, height)
    return f'<rect class="hover" {sides}><title>{escape(words)}</title></rect>'


def _sides(x: float, y: float, width: float, height: float) -> str:
    return f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'


def _grid_line(left: float, right: float, y: float) -> str:
    return f'<line class="ax" x1="{left:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _dot(x: float, y: float, style: str) -> str:
    return f'<circle class="dot-{style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'


def _text(x: float, y: float, words: str, anchor: str, style: str = "") -> str:
    name = f"lab of-{style}" if style else "lab"
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{name}" {place}>{escape(words)}</text>'


def _cut(words: str, most: int) -> str:
    return words if len(words) <= most else f"{words[: most - 1].rstrip()}…"
