"""Bodies of JSON with one damage, drawn at random or one after another until all were there.

The damage is to the structure or to the way of writing. A number that becomes another well-formed
one is left out: nobody can tell 6 from 5. So is an entry that vanishes from a list that does not
say how many it has; such lists are called uncounted here.
"""

import copy
import json
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from kpi_pipeline_tests.bison.damages import (
    AGAIN,
    RAW_CONTROL,
    Body,
    Choose,
    Path,
    Site,
    damages_of,
)

T = TypeVar("T")

# The same examples at every run, and no measure of time: other work shares the machine.
careful = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


def examples(items: Iterable[T]) -> Iterator[T]:
    """All of `items` with the profile `long`; else each fifth, from a random start."""
    step = 1 if settings().max_examples > 100 else 5
    return islice(items, random.randrange(step), None, step)


def encoded(body: Body) -> bytes:
    """The JSON text of a body, damaged or not."""
    text = json.dumps(body, ensure_ascii=False)
    return text.replace(AGAIN, "").replace(RAW_CONTROL, "\x07").encode()


@st.composite
def damaged(draw: st.DrawFn, body: Body, uncounted: Collection[Path] = ()) -> Body:
    """A copy of `body` with one damage; the lists at `uncounted` lose no entries."""
    return _damage(lambda options: draw(st.sampled_from(options)), body, uncounted)


def every_damage(
    body: Body, uncounted: Collection[Path] = (), spared: Collection[Path] = ()
) -> Iterator[Body]:
    """Copies of `body`, each with another damage, until there is no other.

    What stands at `spared` or within stays whole: parts that are like others.
    """
    picks: list[int] = []
    while True:
        sizes: list[int] = []

        def choose(options: Sequence[T], sizes: list[int] = sizes) -> T:
            if len(sizes) == len(picks):
                picks.append(0)
            sizes.append(len(options))
            return options[picks[len(sizes) - 1]]

        yield _damage(choose, body, uncounted, spared)
        # The last choice moves on first, as the last digit of a counter does.
        while picks and picks[-1] == sizes[len(picks) - 1] - 1:
            picks.pop()
        if not picks:
            return
        picks[-1] += 1


def _damage(
    choose: Choose, body: Body, uncounted: Collection[Path], spared: Collection[Path] = ()
) -> Body:
    root = {"body": copy.deepcopy(body)}
    # By depth first: else the many leaves of a long list leave the few upper levels alone.
    by_depth: dict[int, list[Site]] = {}
    for site in _sites(root, "body", ()):
        if not any(site.path[: len(path)] == path for path in spared):
            by_depth.setdefault(len(site.path), []).append(site)
    site = choose(choose(list(by_depth.values())))
    damages = damages_of(
        site,
        loses_entries=site.path not in uncounted,
        in_place=site.path[:-1] in uncounted,
    )
    choose(damages)(choose, site)
    return root["body"]


def _sites(holder: Any, key: Any, path: Path) -> Iterator[Site]:
    site = Site(holder, key, path)
    yield site
    if isinstance(site.value, dict):
        for name in site.value:
            yield from _sites(site.value, name, (*path, name))
    elif isinstance(site.value, list):
        for place in range(len(site.value)):
            yield from _sites(site.value, place, (*path, place))
