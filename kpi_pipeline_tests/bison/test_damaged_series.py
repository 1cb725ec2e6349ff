"""However a series is damaged in ways of its own, it never yields other numbers.

test_damaged_structure.py has the damages that any answer can have.
"""

import copy
import json
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kpi_pipeline.bison import DayCounts
from kpi_pipeline_tests.bison.answers import (
    Body,
    Valid,
    Wire,
    any_series,
    careful,
    encoded,
    read_series,
)
from kpi_pipeline_tests.bison.support import DAY, LABELS

Mutation = Callable[[st.DataObject, Body], Body]


def pick(data: st.DataObject, body: Body) -> Any:
    return data.draw(st.sampled_from(body["data"]))


def pick_pair(data: st.DataObject, body: Body) -> Any:
    lines = [line for line in body["data"] if line["dates"]]
    return data.draw(st.sampled_from(data.draw(st.sampled_from(lines))["dates"]))


def drop_line(data: st.DataObject, body: Body) -> Body:
    body["data"].remove(pick(data, body))
    return body


def duplicate_line(data: st.DataObject, body: Body) -> Body:
    body["data"].append(copy.deepcopy(pick(data, body)))
    return body


def rename_line(data: st.DataObject, body: Body) -> Body:
    line = pick(data, body)
    label = line["label"]
    line["label"] = data.draw(
        st.sampled_from([*LABELS, label.lower(), f"{label} ", "Clicks", None, 3])
    )
    return body


def shuffle_lines(data: st.DataObject, body: Body) -> Body:
    body["data"] = data.draw(st.permutations(body["data"]))
    return body


def drop_day(data: st.DataObject, body: Body) -> Body:
    line = data.draw(st.sampled_from([line for line in body["data"] if line["dates"]]))
    line["dates"].pop(data.draw(st.integers(0, len(line["dates"]) - 1)))
    return body


def repeat_day(data: st.DataObject, body: Body) -> Body:
    line = data.draw(st.sampled_from([line for line in body["data"] if line["dates"]]))
    line["dates"].append(list(data.draw(st.sampled_from(line["dates"]))))
    return body


def move_day(data: st.DataObject, body: Body) -> Body:
    days = data.draw(st.integers(-3, 8))
    pick_pair(data, body)[0] = (DAY + timedelta(days=days)).isoformat()
    return body


def retype_day(data: st.DataObject, body: Body) -> Body:
    pair = pick_pair(data, body)
    compact = str(pair[0]).replace("-", "")
    pair[0] = data.draw(st.sampled_from([compact, f"{pair[0]}T00:00:00Z", 20260304, None, ""]))
    return body


def retype_count(data: st.DataObject, body: Body) -> Body:
    pair = pick_pair(data, body)
    number = int(pair[1])
    pair[1] = data.draw(
        st.sampled_from(
            [
                number,
                str(number),
                f"0{number}",
                f" {number}",
                f"{number}.0",
                float(number),
                bool(number),
                -number - 1,
                None,
                "",
                "none",
                [number],
                {"value": number},
            ]
        )
    )
    return body


def reshape_pair(data: st.DataObject, body: Body) -> Body:
    pair = pick_pair(data, body)
    pair[:] = data.draw(
        st.sampled_from([pair[::-1], [*pair, 0], pair[:1], pair[1:], [[*pair]], []])
    )
    return body


def reshape_line(data: st.DataObject, body: Body) -> Body:
    line = pick(data, body)
    field = data.draw(st.sampled_from(["label", "dates", "color"]))
    if data.draw(st.booleans()):
        del line[field]
    else:
        line[field] = data.draw(st.sampled_from([None, {}, "", 0, {"0": line[field]}]))
    return body


def add_fields(data: st.DataObject, body: Body) -> Body:
    pick(data, body)["total"] = 3
    return body | {"meta": {"page": 1}}


def rewrap(data: st.DataObject, body: Body) -> Body:
    inner = body["data"]
    return data.draw(
        st.sampled_from(
            [
                inner,
                [body],
                {"data": body},
                {"result": inner},
                {"data": inner[0]},
                {"data": [inner]},
                {"data": None},
                {"data": {}},
                {"data": []},
                {},
                {"data": {"success": False}},
                {"data": dict(enumerate(inner))},
                {"data": json.dumps(inner)},
            ]
        )
    )


MUTATIONS: list[Mutation] = [
    drop_line,
    duplicate_line,
    rename_line,
    shuffle_lines,
    drop_day,
    repeat_day,
    move_day,
    retype_day,
    retype_count,
    reshape_pair,
    reshape_line,
    add_fields,
]


@careful
@given(any_series(), st.sampled_from([*MUTATIONS, rewrap]), st.data())
def test_one_mutation_of_the_structure_gives_the_same_numbers_or_an_error(
    valid: Valid[dict[date, DayCounts]], mutate: Mutation, data: st.DataObject
) -> None:
    spoiled = mutate(data, copy.deepcopy(valid.body))
    assert read_series(Wire(encoded(spoiled))) in (valid.truth, None)


@careful
@given(any_series(), st.data())
def test_two_losses_at_once_give_the_same_numbers_or_an_error(
    valid: Valid[dict[date, DayCounts]], data: st.DataObject
) -> None:
    spoiled = copy.deepcopy(valid.body)
    quiet = [drop_line, shuffle_lines, duplicate_line, repeat_day, move_day, retype_count]
    for mutate in data.draw(st.permutations(quiet))[:2]:
        spoiled = mutate(data, spoiled)
    assert read_series(Wire(encoded(spoiled))) in (valid.truth, None)
