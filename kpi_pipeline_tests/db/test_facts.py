from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from kpi_pipeline.db.facts import (
    SendingPlan,
    plan_requested_at,
    read_facts,
    store_facts,
    store_plan,
)
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.tables import raw_bison_stats, sending_plans
from kpi_pipeline_tests.db.stocked import AS_OF, day, imported, record, rows_of

CHICAGO = ZoneInfo("America/Chicago")
EARLIER, LATER = AS_OF - timedelta(minutes=5), AS_OF + timedelta(minutes=5)
MONDAY, TUESDAY, WEDNESDAY = (date(2026, 3, number) for number in (16, 17, 18))


@pytest.fixture(autouse=True)
def _two_clients(engine: Engine, vault: Vault) -> None:
    imported(engine, vault, record(101, "Harbor"), record(102, "Quay"))


def sent(engine: Engine) -> dict[tuple[str, date], tuple[int, datetime]]:
    with engine.connect() as connection:
        rows = rows_of(connection, raw_bison_stats)
    return {(row["workspace"], row["date"]): (row["sent"], row["as_of"]) for row in rows}


def plans(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        rows = rows_of(connection, sending_plans)
    columns = ("date", "emails_scheduled_today", "emails_scheduled_tomorrow", "as_of")
    return [tuple(row[name] for name in columns) for row in rows]


def test_every_count_is_stored_under_its_own_name(engine: Engine) -> None:
    counts = {
        "sent": 1,
        "replied": 2,
        "interested": 3,
        "bounced": 4,
        "unsubscribed": 5,
        "total_opens": 6,
        "unique_opens": 7,
    }
    with engine.begin() as connection:
        store_facts(connection, "harbor", {MONDAY: counts}, AS_OF)
        [row] = rows_of(connection, raw_bison_stats)
    assert {name: row[name] for name in counts} == counts
    assert (row["workspace"], row["date"], row["as_of"]) == ("harbor", MONDAY, AS_OF)


@pytest.mark.parametrize("again", [AS_OF, LATER])
def test_a_younger_answer_replaces_the_day(engine: Engine, again: datetime) -> None:
    with engine.begin() as connection:
        store_facts(connection, "harbor", {MONDAY: day(sent=1)}, AS_OF)
        store_facts(connection, "harbor", {MONDAY: day(sent=2)}, again)
    assert sent(engine) == {("harbor", MONDAY): (2, again)}


def test_updated_at_is_when_a_day_was_last_written(engine: Engine) -> None:
    moments = []
    for as_of in (AS_OF, LATER, EARLIER):
        with engine.begin() as connection:
            store_facts(connection, "harbor", {MONDAY: day()}, as_of)
            moments.append(rows_of(connection, raw_bison_stats)[0]["updated_at"])
    first, younger, older = moments
    assert first < younger == older


def test_an_older_answer_never_overwrites_a_younger_one(engine: Engine) -> None:
    with engine.begin() as connection:
        store_facts(connection, "harbor", {MONDAY: day(sent=2)}, AS_OF)
        store_facts(connection, "harbor", {MONDAY: day(sent=1), TUESDAY: day(sent=1)}, EARLIER)
    assert sent(engine) == {("harbor", MONDAY): (2, AS_OF), ("harbor", TUESDAY): (1, EARLIER)}


def test_storing_some_days_deletes_no_other_day_and_no_other_client(engine: Engine) -> None:
    with engine.begin() as connection:
        store_facts(connection, "harbor", {MONDAY: day(sent=1), TUESDAY: day(sent=2)}, AS_OF)
        store_facts(connection, "quay", {TUESDAY: day(sent=3)}, AS_OF)
        store_facts(connection, "harbor", {TUESDAY: day(sent=4), WEDNESDAY: day(sent=5)}, LATER)
    assert sent(engine) == {
        ("harbor", MONDAY): (1, AS_OF),
        ("harbor", TUESDAY): (4, LATER),
        ("harbor", WEDNESDAY): (5, LATER),
        ("quay", TUESDAY): (3, AS_OF),
    }


def test_an_answer_without_days_changes_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        store_facts(connection, "harbor", {MONDAY: day(sent=1)}, AS_OF)
        store_facts(connection, "harbor", {}, LATER)
    assert sent(engine) == {("harbor", MONDAY): (1, AS_OF)}


def test_a_row_that_cannot_be_stored_leaves_all_days_as_they_were(engine: Engine) -> None:
    with engine.begin() as connection:
        store_facts(connection, "harbor", {MONDAY: day(sent=1)}, AS_OF)
    days = {MONDAY: day(sent=2), TUESDAY: {**day(), "replied": None}}
    with pytest.raises(IntegrityError), engine.begin() as connection:
        store_facts(connection, "harbor", days, LATER)
    assert sent(engine) == {("harbor", MONDAY): (1, AS_OF)}


def test_no_count_below_zero_is_ever_stored(engine: Engine) -> None:
    with pytest.raises(IntegrityError, match="sent_counts"), engine.begin() as connection:
        store_facts(connection, "harbor", {MONDAY: day(sent=-1)}, AS_OF)
    assert sent(engine) == {}


def test_facts_are_read_for_the_period_and_the_clients_asked_for(engine: Engine) -> None:
    days = {it: day(sent=it.day) for it in (MONDAY, TUESDAY, WEDNESDAY)}
    with engine.begin() as connection:
        store_facts(connection, "harbor", days, AS_OF)
        store_facts(connection, "quay", days, AS_OF)
        facts = read_facts(connection, ["quay"], TUESDAY, WEDNESDAY)
    assert sorted((fact.workspace, fact.date, fact.sent, fact.as_of) for fact in facts) == [
        ("quay", TUESDAY, 17, AS_OF),
        ("quay", WEDNESDAY, 18, AS_OF),
    ]


def test_instants_are_read_in_utc_whatever_the_servers_time_zone(engine: Engine) -> None:
    with engine.begin() as connection:
        statement = f"ALTER DATABASE {engine.url.database} SET timezone TO 'Asia/Tokyo'"
        connection.exec_driver_sql(statement)
        store_facts(connection, "harbor", {MONDAY: day()}, AS_OF)
    # Only a new session has the server's new setting.
    engine.dispose()
    [(_, as_of)] = sent(engine).values()
    assert (as_of, as_of.utcoffset()) == (AS_OF, timedelta(0))


def test_a_sending_plan_is_kept_for_its_own_day(engine: Engine) -> None:
    with engine.begin() as connection:
        store_plan(connection, "harbor", SendingPlan(MONDAY, 100, 200, EARLIER))
        store_plan(connection, "harbor", SendingPlan(TUESDAY, 300, 400, AS_OF))
    assert plans(engine) == [(MONDAY, 100, 200, EARLIER), (TUESDAY, 300, 400, AS_OF)]


def test_an_older_sending_plan_never_overwrites_a_younger_one(engine: Engine) -> None:
    with engine.begin() as connection:
        store_plan(connection, "harbor", SendingPlan(MONDAY, 100, 200, AS_OF))
        store_plan(connection, "harbor", SendingPlan(MONDAY, 1, 2, EARLIER))
    assert plans(engine) == [(MONDAY, 100, 200, AS_OF)]
    with engine.begin() as connection:
        store_plan(connection, "harbor", SendingPlan(MONDAY, 3, 4, LATER))
    assert plans(engine) == [(MONDAY, 3, 4, LATER)]


@pytest.mark.parametrize(("as_of", "known"), [(EARLIER, True), (AS_OF, False), (LATER, False)])
def test_a_plan_that_could_not_be_read_replaces_only_that_days_plan_and_no_younger_one(
    engine: Engine, as_of: datetime, known: bool
) -> None:
    with engine.begin() as connection:
        store_plan(connection, "harbor", SendingPlan(MONDAY, 100, 200, EARLIER))
        store_plan(connection, "harbor", SendingPlan(TUESDAY, 300, 400, AS_OF))
        store_plan(connection, "harbor", SendingPlan(TUESDAY, None, None, as_of))
        requested_at = plan_requested_at(connection, "harbor", TUESDAY)
    assert requested_at == max(as_of, AS_OF)
    assert plans(engine) == [
        (MONDAY, 100, 200, EARLIER),
        (TUESDAY, *((300, 400) if known else (None, None)), requested_at),
    ]


def test_opens_may_be_unknown(engine: Engine) -> None:
    counts = {**day(), "total_opens": None, "unique_opens": None}
    with engine.begin() as connection:
        store_facts(connection, "harbor", {MONDAY: counts}, AS_OF)
        [row] = rows_of(connection, raw_bison_stats)
    assert (row["sent"], row["total_opens"], row["unique_opens"]) == (100, None, None)
