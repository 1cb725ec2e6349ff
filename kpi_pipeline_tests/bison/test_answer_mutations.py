"""However an answer is damaged, it yields the same numbers or an error: no others, no zeros.

Left out is what nobody can tell: a count that becomes another well-formed count, and a campaign
that vanishes from a sending plan, which does not say how many it has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpi_pipeline.bison import PeriodStats
from kpi_pipeline_tests.bison.damages import Body, Path
from kpi_pipeline_tests.bison.mutations import careful, damaged, encoded, every_damage, examples
from kpi_pipeline_tests.bison.reading import plan_read, series_read, stats_read, team_read
from kpi_pipeline_tests.bison.support import DAY, LABELS
from kpi_pipeline_tests.bison.valid_answers import (
    Valid,
    plan,
    series,
    stats,
    user,
    valid_plans,
    valid_series,
    valid_stats,
    valid_users,
)
from kpi_pipeline_tests.bison.wire import (
    NO_SUCCESSES,
    Wire,
    damaged_bytes,
    damaged_envelope,
    with_members,
)


@dataclass(frozen=True)
class Kind:
    """An answer that numbers come from: how it is read, one of it, and any of it.

    `spared` are the parts of the one that are not damaged because they are like others.
    """

    read: Callable[[Wire], object]
    one: Valid[Any]
    others: st.SearchStrategy[Valid[Any]]
    uncounted: tuple[Path, ...] = ()
    spared: tuple[Path, ...] = ()


# One day of five: its loss shows, and each further day would take a second longer.
COUNTS = {label: {DAY: number} for number, label in enumerate(LABELS, start=11)}
TOTALS = PeriodStats(emails_sent=990, interested=5, bounced=12, unsubscribed=3, replied=31)

OTHER_LINES = tuple(
    ("data", place) for place, label in enumerate(LABELS) if label not in ("Sent", "Bounced")
)

KINDS = {
    "series": Kind(series_read, series(COUNTS), valid_series(), spared=OTHER_LINES),
    "plan": Kind(plan_read, plan([40, 2]), valid_plans(), uncounted=(("data",),)),
    "stats": Kind(stats_read, stats(TOTALS, str), valid_stats()),
    "user": Kind(team_read, user(3, team=7, parent=1), valid_users()),
}
of_every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)

NO_ANSWERS = [
    b"",
    b" \r\n\t ",
    b"null",
    b"0",
    b"5",
    b"NaN",
    b"true",
    b'"data"',
    b"[]",
    b"{}",
    b"OK",
    b"\x00",
    b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>",
    b'{"data": null}',
    b'{"data": ' + b"9" * 5000 + b"}",
    b'{"data": ' + b"[" * 100_000,
]


@of_every_kind
@careful
@given(data=st.data())
def test_a_whole_answer_gives_its_numbers(kind: Kind, data: st.DataObject) -> None:
    valid = data.draw(kind.others)
    assert kind.read(Wire(encoded(valid.body))) == valid.truth


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


@of_every_kind
@pytest.mark.parametrize("damage", [damaged_bytes, damaged_envelope])
@careful
@given(data=st.data())
def test_no_damage_to_the_bytes_or_the_envelope_gives_other_numbers(
    kind: Kind, damage: Callable[[Body], st.SearchStrategy[Wire]], data: st.DataObject
) -> None:
    valid = data.draw(kind.others)
    wire = data.draw(damage(valid.body))
    assert kind.read(wire) in (valid.truth, None)


@pytest.mark.thorough
@of_every_kind
def test_an_answer_that_is_cut_off_anywhere_is_an_error(kind: Kind) -> None:
    text = encoded(kind.one.body)
    for length in examples(range(len(text))):
        assert kind.read(Wire(text[:length])) is None, text[:length]


@of_every_kind
def test_what_is_no_answer_at_all_is_an_error(kind: Kind) -> None:
    for text in NO_ANSWERS:
        assert kind.read(Wire(text)) is None, text[:40]


@of_every_kind
def test_a_failure_beside_whole_numbers_is_an_error(kind: Kind) -> None:
    for success in (False, "false", "False", " FALSE "):
        for body in with_members(kind.one.body, {"success": success}):
            assert kind.read(Wire(encoded(body))) is None, body


@of_every_kind
def test_whole_numbers_under_a_status_that_is_no_success_are_an_error(kind: Kind) -> None:
    for status in NO_SUCCESSES:
        wire = Wire(encoded(kind.one.body), status, {"Location": "https://bison.example/login"})
        assert kind.read(wire) is None, status


@of_every_kind
def test_the_type_that_an_answer_claims_to_have_does_not_matter(kind: Kind) -> None:
    wire = Wire(encoded(kind.one.body), headers={"Content-Type": "text/html; charset=latin-1"})
    assert kind.read(wire) == kind.one.truth
