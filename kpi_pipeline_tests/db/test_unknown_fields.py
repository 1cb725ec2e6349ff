from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.sync_log import note_unknown_fields
from kpi_pipeline.db.tables import bison_unknown_fields
from kpi_pipeline_tests.db.stocked import rows_of
from kpi_pipeline_tests.db.support import run, until_somebody_waits

NOON = datetime(2026, 3, 18, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=2)
USERS = "GET /api/users"
STATS = "GET /api/workspaces/v1.1/stats"
MOOD = (USERS, "data.mood")
COLOUR = (USERS, "data.colour")
TOTAL = (STATS, "data.total")


def note(
    engine: Engine,
    seen: Mapping[tuple[str, str], int],
    now: datetime = NOON,
    instance: str = "main",
) -> list[tuple[str, str]]:
    with engine.begin() as connection:
        return note_unknown_fields(connection, instance, seen, now)


def test_a_field_is_new_once_and_counted_ever_after(engine: Engine) -> None:
    assert note(engine, {MOOD: 3}) == [MOOD]
    assert note(engine, {MOOD: 4}, LATER) == []
    with engine.connect() as connection:
        assert rows_of(connection, bison_unknown_fields) == [
            {
                "instance": "main",
                "call": USERS,
                "field": "data.mood",
                "answers": 7,
                "first_seen_at": NOON,
                "last_seen_at": LATER,
            }
        ]


def test_new_fields_are_told_sorted_and_apart_from_known_ones(engine: Engine) -> None:
    note(engine, {MOOD: 1})
    assert note(engine, {TOTAL: 2, MOOD: 5, COLOUR: 1}) == [COLOUR, TOTAL]
    with engine.connect() as connection:
        counted = {
            row["field"]: row["answers"] for row in rows_of(connection, bison_unknown_fields)
        }
    assert counted == {"data.mood": 6, "data.colour": 1, "data.total": 2}


def test_a_field_of_one_call_is_not_that_of_another(engine: Engine) -> None:
    note(engine, {(USERS, "data.total"): 1})
    assert note(engine, {TOTAL: 1}) == [TOTAL]
    note(engine, {TOTAL: 4})
    with engine.connect() as connection:
        counted = {row["call"]: row["answers"] for row in rows_of(connection, bison_unknown_fields)}
    assert counted == {USERS: 1, STATS: 5}


def test_each_instance_has_unknown_fields_of_its_own(engine: Engine) -> None:
    note(engine, {MOOD: 1})
    assert note(engine, {MOOD: 1}, instance="second") == [MOOD]
    assert note(engine, {MOOD: 4}) == []
    with engine.connect() as connection:
        rows = rows_of(connection, bison_unknown_fields)
    assert {row["instance"]: row["answers"] for row in rows} == {"main": 5, "second": 1}


def test_what_was_seen_later_is_not_made_earlier_by_a_latecomer(engine: Engine) -> None:
    note(engine, {MOOD: 1}, LATER)
    note(engine, {MOOD: 1}, NOON)
    with engine.connect() as connection:
        [row] = rows_of(connection, bison_unknown_fields)
    assert row["last_seen_at"] == LATER


def test_nothing_seen_is_nothing_new(engine: Engine) -> None:
    assert note(engine, {}) == []


@pytest.mark.parametrize(("first_keeps_it", "new_to_the_second"), [(True, []), (False, [MOOD])])
def test_of_two_at_once_a_field_is_new_to_exactly_one(
    engine: Engine,
    other_engine: Engine,
    first_keeps_it: bool,
    new_to_the_second: list[tuple[str, str]],
) -> None:
    with ThreadPoolExecutor(1) as pool, engine.connect() as connection:
        assert note_unknown_fields(connection, "main", {MOOD: 1, TOTAL: 1}, NOON) == [MOOD, TOTAL]
        second = pool.submit(note, other_engine, {COLOUR: 1, MOOD: 1})
        run(until_somebody_waits(engine))
        if first_keeps_it:
            connection.commit()
        else:
            connection.rollback()
        assert second.result(timeout=60) == [COLOUR, *new_to_the_second]
