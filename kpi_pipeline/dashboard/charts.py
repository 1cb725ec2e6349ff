"""Small charts as SVG, drawn by the server: a bar of percent of target, and a sparkline.

They hold numbers and words of our own alone. Styles are classes, as the pages allow none inline.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

from markupsafe import Markup

# Percent of target along the whole width of a bar. It is one for all rows, so the lines of all
# targets stand under one another.
_SCALE = 400 / 3
_WIDTH = 132
_TARGET_AT = round(_WIDTH * 100 / _SCALE)
_SPARK_HEIGHT = 20
_WEEK = 7


def bullet(so_far: int, projection: int | None, target: int | None) -> Markup:
    """A bar of what there is, a pale one of the projection behind it, and a line at the target."""
    label = f"{so_far:,} positive replies"
    if target is not None:
        label += f" of {target:,}"
    if projection is not None:
        label += f", projected {projection:,}"
    parts = ['<rect class="track" y="3" width="132" height="10" rx="3"/>']
    if target:
        ghost, bar = _length(projection or 0, target), _length(so_far, target)
        if ghost > bar:
            parts.append(f'<rect class="ghost" y="3" width="{ghost}" height="10" rx="3"/>')
        if bar:
            parts.append(f'<rect class="bar" y="3" width="{bar}" height="10" rx="3"/>')
        if so_far * 100 > target * _SCALE:
            # The bar goes on beyond the scale.
            parts.append('<path class="beyond" d="M124 5l3 3-3 3"/>')
        parts.append(f'<path class="tick" d="M{_TARGET_AT} 0v16"/>')
    # Markup of our own; its label holds numbers alone.
    return Markup(  # noqa: S704
        f'<svg class="bullet" viewBox="0 0 132 16" width="132" height="16" '
        f'preserveAspectRatio="none" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )


# Drawn again only where a count changed: that took a fifth of reading a page.
@lru_cache(maxsize=2_000)
def sparkline(daily: tuple[int | None, ...]) -> Markup:
    """The mean of seven days, for each day but the first six; interrupted where days are missing.

    Empty if fewer than two days have one.
    """
    means = _means(daily)
    known = [it for it in means if it is not None]
    if len(known) < 2:
        return Markup()
    top = max(max(known), 1 / _WEEK)
    line, area, begin, before = "", "", 0, None
    for x, mean in enumerate([*means, None]):
        y = (
            None
            if mean is None
            else _SPARK_HEIGHT - round(max(mean, 0) / top * (_SPARK_HEIGHT - 2))
        )
        if y is None:
            if before is not None:
                area += f"V{_SPARK_HEIGHT}H{begin}z"
        elif before is None:
            begin = x
            line += f"M{x} {y}"
            area += f"M{x} {_SPARK_HEIGHT}V{y}"
        else:
            step = f"l1{'' if y < before else ' '}{y - before}"
            line += step
            area += step
        before = y
    label = f"Positive replies a day, mean of 7 days: {known[0]:.1f} at first, {known[-1]:.1f} now"
    return Markup(  # noqa: S704
        f'<svg class="sparkline" viewBox="0 0 {len(means) - 1} {_SPARK_HEIGHT}" width="72" '
        f'height="20" preserveAspectRatio="none" role="img" aria-label="{label}">'
        f'<path class="sparkfill" d="{area}"/><path class="spark" d="{line}"/></svg>'
    )


def _length(count: int, target: int) -> int:
    return min(_WIDTH, max(0, round(count * 100 / target / _SCALE * _WIDTH)))


def _means(daily: Sequence[int | None]) -> list[float | None]:
    """The mean of the seven days that end on each day but the first six."""
    sums = [0, *accumulate(it or 0 for it in daily)]
    missing = [0, *accumulate(it is None for it in daily)]
    return [
        None if missing[end] - missing[end - _WEEK] else (sums[end] - sums[end - _WEEK]) / _WEEK
        for end in range(_WEEK, len(sums))
    ]
