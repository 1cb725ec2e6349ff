"""Damage to the structure of an answer, or to its notation, gives the same numbers or an error.

Two damages are left out because nobody can tell: a number that becomes another well-formed number,
and a campaign that vanishes from a sending plan, which does not say how many it has.
"""

import copy
import json
import math
from collections.abc import Collection, Iterator
from datetime import date
from functools import reduce
from operator import getitem
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpi_pipeline.bison import DayCounts
from kpi_pipeline_tests.bison.answers import (
    AGAIN,
    IDS,
    RAW_CONTROL,
    Body,
    Kind,
    Path,
    Valid,
    Wire,
    any_series,
    careful,
    encoded,
    examples,
    of_every_kind,
    page,
    read_list,
    read_series,
)

JUNK: tuple[Body, ...] = (
    *(None, True, False, {}, [], [None], [{}]),
    *(1.5, -1, math.nan, math.inf, 10**30),
    *("", " ", "none", "9" * 40, "9" * 5000),
)
# Names with a meaning for us or for Python, and none where they are added.
STRAY_NAMES = (
    *("mood", "replied", "sent", "success", "total", "team", "workspace", "id", "data", "meta"),
    *("next_cursor", "unknown", "model_fields", "__class__", ""),
)
STRAY_ENTRIES: tuple[Body, ...] = (None, 0, "", {}, [])
# For the second of two members with one name.
SECOND_VALUES: tuple[Body, ...] = (8, "0", None, [])
# Of a number n.
NOTATIONS = ("n", "0n", " n", "n ", "n\n", "+n", "-n", "n.0", "n.", "ne0", "n_0")


def every_damage(
    body: Body, uncounted: Collection[Path] = (), spared: Collection[Path] = ()
) -> Iterator[Body]:
    """Copies of `body`, each with one damage, but none at `spared` or within."""
    for path in _paths(body, spared):
        for kind in _damages(body, path, uncounted, spared):
            for value in kind:
                yield _replaced(body, path, value)


@st.composite
def damaged(draw: st.DrawFn, body: Body, uncounted: Collection[Path] = ()) -> Body:
    """A copy of `body` with one damage; the lists at `uncounted` lose no entries."""
    # By depth first: a long list has many leaves, and the few upper levels matter as much.
    by_depth: dict[int, list[Path]] = {}
    for path in _paths(body):
        by_depth.setdefault(len(path), []).append(path)
    path = draw(st.sampled_from(draw(st.sampled_from(list(by_depth.values())))))
    kind = draw(st.sampled_from(list(_damages(body, path, uncounted))))
    return _replaced(body, path, draw(st.sampled_from(kind)))


def _paths(body: Body, spared: Collection[Path] = (), path: Path = ()) -> Iterator[Path]:
    """The places of all values within `body`, its own first."""
    if path in spared:
        return
    yield path
    for key, value in _members(body):
        yield from _paths(value, spared, (*path, key))


def _members(value: Body) -> list[tuple[Any, Body]]:
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list) else []


def _replaced(body: Body, path: Path, value: Body) -> Body:
    if not path:
        return value
    holder = copy.copy(body)
    holder[path[0]] = _replaced(body[path[0]], path[1:], value)
    return holder


def _damages(
    body: Body, path: Path, uncounted: Collection[Path] = (), spared: Collection[Path] = ()
) -> Iterator[list[Body]]:
    """The kinds of damage to the value at `path`, each a list of values to replace it."""
    value = reduce(getitem, path, body)
    loses_entries = path not in uncounted
    yield [junk for junk in JUNK if junk != [] or loses_entries]
    names = ("data", "value", "0", str(path[-1]) if path else "body")
    yield [[value], *({name: value} for name in names)]
    if isinstance(value, dict | list) and value:
        yield [member for _, member in _members(value)]
    if isinstance(value, str):
        places = (0, len(value) // 2, len(value))
        yield [value[:place] + RAW_CONTROL + value[place:] for place in places]
    # Python refuses to read the longest texts of digits.
    if type(value) is int or (isinstance(value, str) and value.isdecimal() and len(value) < 1000):
        yield _other_notations(int(value))

    touched = [key for key, _ in _members(value) if (*path, key) not in spared]
    kinds: list[list[Body]] = []
    if isinstance(value, dict):
        kinds = _damages_of_object(value, touched)
    if isinstance(value, list):
        kinds = _damages_of_list(value, touched, loses_entries)
    yield from filter(None, kinds)


def _damages_of_object(members: dict[str, Body], touched: Collection[str]) -> list[list[Body]]:
    # Each touched member, and the object without it.
    rests = {
        name: {other: value for other, value in members.items() if other != name}
        for name in touched
    }
    return [
        # A member too few, a member too many.
        list(rests.values()),
        [members | {n: junk} for n in STRAY_NAMES if n not in members for junk in (8, None)],
        # Another name.
        [rest | {other: members[name]} for name, rest in rests.items() for other in _names(name)],
        # The same name twice, with another value after the true one or before it.
        [
            twice
            for name in touched
            for junk in SECOND_VALUES
            for twice in (members | {name + AGAIN: junk}, {name + AGAIN: junk} | members)
        ],
        # The members of a member beside it.
        [
            rest | members[name] | rest
            for name, rest in rests.items()
            if isinstance(members[name], dict)
        ],
        # Another order, another type.
        [dict(reversed(members.items()))],
        [list(map(list, members.items())), list(members.values()), list(members)],
        [json.dumps(members)],
    ]


def _damages_of_list(
    entries: list[Body], touched: Collection[int], loses_entries: bool
) -> list[list[Body]]:
    return [
        # An entry too few, an entry too many, an entry twice.
        [entries[:n] + entries[n + 1 :] for n in touched if loses_entries],
        [more for junk in STRAY_ENTRIES for more in ([junk, *entries], [*entries, junk])],
        [more for n in touched for more in ([entries[n], *entries], [*entries, entries[n]])],
        # Another order, another type.
        [entries[::-1], [*entries[1:], *entries[:1]]],
        [{str(n): entry for n, entry in enumerate(entries)}],
        [json.dumps(entries), ", ".join(map(str, entries))],
    ]


def _names(name: str) -> list[str]:
    """Names that a careless reader takes for `name`."""
    head, *tail = name.split("_")
    spaced = (f" {name}", f"{name} ", f"{name}\u00a0", f"{name}{RAW_CONTROL}")
    camel = head + "".join(map(str.capitalize, tail))
    names = {name.upper(), name.capitalize(), camel, name.replace("_", "-"), *spaced}
    return sorted(names - {name})


def _other_notations(number: int) -> list[Body]:
    digits = str(number)
    return [
        *(notation.replace("n", digits) for notation in NOTATIONS),
        *(f"{number:,}.00", f"0x{number:x}"),
        *(digits.translate({ord("0") + n: ord(zero) + n for n in range(10)}) for zero in "０٠"),
        *(number, float(number), number + 0.5, number * 1e300, -number - 1, number + 10**30),
        *([number], {"value": number}),
    ]


@pytest.mark.thorough
@of_every_kind
def test_no_damage_to_the_structure_gives_other_numbers(kind: Kind) -> None:
    assert kind.read(Wire(encoded(kind.one.body))) == kind.one.truth
    for body in examples(every_damage(kind.one.body, kind.uncounted, kind.spared)):
        assert kind.read(Wire(encoded(body))) in (kind.one.truth, None), body


@of_every_kind
@careful
@given(data=st.data())
def test_no_damage_to_the_structure_of_any_answer_gives_other_numbers(
    kind: Kind, data: st.DataObject
) -> None:
    valid = data.draw(kind.others)
    body = data.draw(damaged(valid.body, kind.uncounted))
    assert kind.read(Wire(encoded(body))) in (valid.truth, None)


@careful
@given(any_series(), st.data())
def test_two_damages_to_a_series_give_the_same_numbers_or_an_error(
    valid: Valid[dict[date, DayCounts]], data: st.DataObject
) -> None:
    body = data.draw(damaged(data.draw(damaged(valid.body))))
    assert read_series(Wire(encoded(body))) in (valid.truth, None)


@pytest.mark.parametrize("spoiled", [1, 2])
@pytest.mark.parametrize("lost", [[0], [1], [0, 1]])
def test_a_page_that_lost_entries_is_an_error(spoiled: int, lost: list[int]) -> None:
    body = page(spoiled)
    kept = [row for place, row in enumerate(body["data"]) if place not in lost]
    if kept != body["data"]:
        pages = {1: page(1), 2: page(2), spoiled: body | {"data": kept}}
        assert read_list(lambda number: Wire(encoded(pages[number]))) is None


@pytest.mark.parametrize("member", ["current_page", "last_page", "total", "per_page", "from", "to"])
def test_the_same_damage_on_every_page_makes_no_walk_without_end(member: str) -> None:
    for junk in [*JUNK, 0, "0"]:

        def spoiled(number: int, junk: Body = junk) -> Wire:
            body = page(number)
            return Wire(encoded(body | {"meta": body["meta"] | {member: junk}}))

        assert read_list(spoiled) in (IDS, None), junk
