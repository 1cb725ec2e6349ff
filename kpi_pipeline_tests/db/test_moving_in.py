"""Moving in: clients, targets and rows of a database of the old shape, with its faults."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.db.facts import store_facts
from kpi_pipeline.db.migrate import upgrade
from kpi_pipeline.db.moving_in.compare import Comparison, Kind, compare_old_rows
from kpi_pipeline.db.moving_in.match import Matches, match_clients
from kpi_pipeline.db.moving_in.source import OldSystem, read_old_system, reading
from kpi_pipeline.db.moving_in.take import Taken, take
from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.db.registry.client_import import read_states
from kpi_pipeline.db.registry.clients import all_clients
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.db.tables import client_api_keys, client_targets, clients, old_metrics
from kpi_pipeline.domain.calendar import days_between, first_of_month
from kpi_pipeline.errors import KpiError
from kpi_pipeline_tests.cli.running import rows_of
from kpi_pipeline_tests.db.old_system import (
    DAYS,
    INSTANCE,
    OldWorkspace,
    build_old_system,
    facts_of,
)
from kpi_pipeline_tests.db.stocked import AS_OF, CHICAGO, TODAY, api_key, imported, record

LAST = TODAY - timedelta(days=1)
FIRST = LAST - timedelta(days=DAYS - 1)
MONTH = first_of_month(FIRST)
HOLES = [LAST - timedelta(days=it) for it in (10, 11, 40, 41, 42)]
FAILED = [LAST - timedelta(days=it) for it in (3, 4)]
AGENCY = [
    OldWorkspace(100, "Harbor Analytics  ", api_key=api_key(7).get_secret_value()),
    OldWorkspace(101, "Quay", missing=HOLES),
    OldWorkspace(102, "Tiny Target", target=1),
    OldWorkspace(103, "No Target", target=0, sending_target=0),
    OldWorkspace(104, " Failed Calls", zeros=FAILED),
    OldWorkspace(105, "Old Name", display_name="The Mill"),
    OldWorkspace(119, "Wrong Number"),
    OldWorkspace(None, "No Number"),
    OldWorkspace(108, "Left Us", active=False),
    OldWorkspace(109, "Gone From Bison"),
    OldWorkspace(110, "Twin"),
    OldWorkspace(110, "Twin (before)", active=False),
    *(OldWorkspace(number, f"Client {number}") for number in range(112, 126)),
]
LISTED = {
    **{it.bison_id: it.name.strip() for it in AGENCY if it.bison_id not in (None, 109)},
    **{105: "New Name", 110: "Twin", 119: "Client 119", 200: "Wrong Number", 201: "No Number"},
    300: "No Client",
}


@pytest.fixture(scope="module")
def source(postgres: URL, administer: Callable[[str], None]) -> Iterator[URL]:
    """The old database: 26 registrations and 90 days."""
    name = f"kpi_old_{uuid.uuid4().hex}"
    administer(f"CREATE DATABASE {name}")
    url = postgres.set(database=name)
    with made(url) as connection:
        build_old_system(connection, AGENCY, LAST)
    yield url
    administer(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def made(url: URL) -> Iterator[Connection]:
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@pytest.fixture(scope="module")
def old(source: URL) -> OldSystem:
    with reading(source) as connection:
        return read_old_system(connection, "public")


def last_day_of(old: OldSystem) -> OldSystem:
    """The same with the rows of its last day alone."""
    return replace(old, rows=[it for it in old.rows if it.metric_date == LAST])


def matched(engine: Engine, old: OldSystem, names: Mapping[int, str] | None = LISTED) -> Matches:
    with engine.connect() as connection:
        return match_clients(old.clients, all_clients(connection), {"main": names}, {})


def taken(engine: Engine, vault: Vault, old: OldSystem, **options: Any) -> Taken:
    chosen = {"targets_from": MONTH, "vault": vault, "zone": CHICAGO, "with_keys": False}
    found = matched(engine, old).found
    with engine.begin() as connection:
        return take(connection, found, old.rows, **{**chosen, **options})


def computed(engine: Engine, workspace: str, number: int) -> None:
    """Facts of the old days as Bison counts them, and the rows computed from them."""
    with engine.begin() as connection:
        facts = facts_of(number, FIRST - timedelta(days=62), LAST)
        store_facts(connection, workspace, facts, AS_OF)
        days = days_between(FIRST, LAST)
        update_rows(
            connection, [workspace], since=LAST, until=LAST, zone=CHICAGO, source="sync", dates=days
        )


def compared(engine: Engine) -> Comparison:
    with engine.connect() as connection:
        return compare_old_rows(connection, TODAY)


def test_every_client_target_and_row_is_taken_but_those_of_a_wrong_number(
    engine: Engine, vault: Vault, old: OldSystem
) -> None:
    assert len(AGENCY) == 26
    done = taken(engine, vault, old)
    # Two registrations are one client, and one names the workspace of another.
    assert (done.clients, len(done.new), len(done.with_keys)) == (24, 24, 0)
    assert done.unmatched == {"Wrong Number": DAYS}
    assert done.rows == done.new_rows == 24 * DAYS - len(HOLES)
    assert done.repeated == DAYS
    with engine.connect() as connection:
        names = {it.workspace: it.name for it in all_clients(connection)}
        states = read_states(connection, list(names), MONTH)
    assert names["harbor-analytics"] == "Harbor Analytics"
    assert names["failed-calls"] == "Failed Calls"
    assert names["new-name"] == "New Name"
    assert states["new-name"].display_name == "The Mill"
    assert {it for it in states if not states[it].active} == {"gone-from-bison", "left-us"}
    assert states["quay"].monthly_kpi_target == 60
    assert states["quay"].monthly_sending_target == 30_000
    # The old system's word for none is 0.
    assert states["no-target"].monthly_kpi_target is None
    assert states["no-target"].monthly_sending_target is None


def test_a_second_run_changes_nothing(engine: Engine, vault: Vault, old: OldSystem) -> None:
    taken(engine, vault, old)
    tables = (clients, client_targets, client_api_keys, old_metrics)
    before = rows_of(engine, *tables)
    again = taken(engine, vault, old)
    assert again.changes_nothing
    assert (again.clients, again.rows) == (24, 24 * DAYS - len(HOLES))
    assert rows_of(engine, *tables) == before


def test_what_changed_there_since_is_taken_and_counted(
    engine: Engine, vault: Vault, old: OldSystem
) -> None:
    few = last_day_of(old)
    taken(engine, vault, few)
    first, *others = few.clients
    dearer = replace(first, row={**first.row, "price_per_lead": "30.00"})
    row = next(it for it in few.rows if it.name == first.name)
    more = replace(row, values={**row.values, "emails_sent_mtd": 1})
    changed = replace(few, clients=[dearer, *others], rows=[more])
    done = taken(engine, vault, changed)
    assert (done.registrations, done.new_rows, done.changed_rows) == (1, 0, 1)
    price = text("SELECT price_per_lead FROM client_registry WHERE workspace = 'harbor-analytics'")
    with engine.connect() as connection:
        assert connection.scalar(price) == Decimal("30.00")


def test_a_client_that_is_known_stays_as_it_is_and_gets_targets_if_it_never_had_any(
    engine: Engine, vault: Vault, old: OldSystem
) -> None:
    ours = record(101, "Quay", display_name="Our Quay", monthly_kpi_target=75, active=False)
    imported(engine, vault, ours, record(112, "Client 112", monthly_kpi_target=None))
    done = taken(engine, vault, last_day_of(old))
    assert len(done.new) == 22
    assert "quay" not in done.with_targets
    assert "client-112" in done.with_targets
    with engine.connect() as connection:
        state = read_states(connection, ["quay"], TODAY)["quay"]
    assert (state.display_name, state.monthly_kpi_target) == ("Our Quay", 75)
    assert not state.active


def test_a_number_of_another_clients_workspace_is_not_believed_until_somebody_corrects_it(
    engine: Engine, vault: Vault, old: OldSystem
) -> None:
    assert matched(engine, old).problems == [
        "Wrong Number: the registry says workspace 119, which is Client 119 in Email Bison. Of its "
        "name are: 200. Import it with the right id (`kpi clients import`), and run this again."
    ]
    imported(engine, vault, record(200, "Wrong Number"))
    matches = matched(engine, old)
    assert matches.problems == []
    assert "Wrong Number: taken as the client wrong-number, by its name." in matches.notes
    assert taken(engine, vault, last_day_of(old)).unmatched == {}


def test_what_email_bison_lists_otherwise_is_said(engine: Engine, old: OldSystem) -> None:
    assert matched(engine, old).notes == [
        "Old Name: it is called New Name in Email Bison by now.",
        "No Number: the registry has no Bison workspace id; found by its name: 201.",
        "Gone From Bison: main lists no workspace 109 any more; taken as an inactive client.",
        "Twin (before): it is called Twin in Email Bison by now.",
        "Twin (before): registered twice, as Twin too; its rows are taken as those of that client.",
    ]
    unlisted = matched(engine, old, None)
    assert unlisted.problems == [
        "No Number: it has no Bison workspace id, and the workspaces of main could not be listed. "
        "Import it with the right id (`kpi clients import`), and run this again."
    ]


def test_an_instance_that_two_of_ours_could_be_is_asked_for(old: OldSystem) -> None:
    both = {"main": LISTED, "second": {}}
    with pytest.raises(KpiError, match=f"--instance '{INSTANCE}=main'"):
        match_clients(old.clients, [], both, {})
    with pytest.raises(KpiError, match="The instance third is not configured"):
        match_clients(old.clients, [], both, {INSTANCE: "third"})
    found = match_clients(old.clients, [], both, {INSTANCE.upper(): "main"}).found
    assert {it.instance for it in found} == {"main"}


def test_api_keys_are_taken_only_if_asked_for_and_kept_nowhere_in_plain_text(
    engine: Engine, vault: Vault, old: OldSystem
) -> None:
    secret = api_key(7).get_secret_value()
    assert secret not in repr(old)
    assert any("holds 1 API keys in plain text" in note for note in old.notes)
    few = last_day_of(old)
    assert taken(engine, vault, few, with_keys=True).with_keys == ["harbor-analytics"]
    assert taken(engine, vault, few, with_keys=True).changes_nothing
    dump = text("SELECT string_agg(row::text, ' ') FROM old_clients")
    with engine.connect() as connection:
        assert secret not in str(connection.scalar(dump))


def test_the_source_is_read_in_a_transaction_that_cannot_write(source: URL) -> None:
    with reading(source) as connection:
        read_old_system(connection, "public")
        with pytest.raises(DBAPIError) as refused:
            connection.execute(text("DELETE FROM client_leads"))
    assert getattr(refused.value.orig, "sqlstate", None) == "25006"


def test_columns_and_the_table_of_rows_may_be_missing(
    engine: Engine, vault: Vault, source: URL
) -> None:
    with made(source) as connection:
        build_old_system(connection, AGENCY[:3], LAST, days=40, schema="small", instance=None)
        connection.execute(text("ALTER TABLE client_registry DROP COLUMN bison_instance"))
        connection.execute(text("ALTER TABLE client_registry DROP COLUMN is_active"))
        connection.execute(text("ALTER TABLE client_registry DROP COLUMN monthly_kpi_target"))
        for column in ("metric_type", "mtd_leads_progress", "updated_at"):
            connection.execute(text(f"ALTER TABLE client_metrics DROP COLUMN {column} CASCADE"))
    with reading(source) as connection:
        found = read_old_system(connection, "small")
    assert found.notes[0].startswith("client_registry has no column is_active, ")
    done = taken(engine, vault, found)
    assert (len(done.new), done.rows) == (3, 120 - 2)
    with made(source) as connection:
        connection.execute(text("DROP TABLE small.client_metrics CASCADE"))
    with reading(source) as connection:
        found = read_old_system(connection, "small")
        assert found.rows == []
        assert "There is no table client_metrics" in found.notes[-1]
        with pytest.raises(KpiError, match="has no table client_registry in the schema nowhere"):
            read_old_system(connection, "nowhere")


def test_the_differences_from_our_own_computation_are_listed_by_their_kind(
    engine: Engine, vault: Vault, old: OldSystem
) -> None:
    taken(engine, vault, old)
    found = compared(engine)
    assert found.compared == 0
    assert len(found.uncomputed) == 22
    assert found.of_inactive == 2 * DAYS
    assert found.gaps == {"quay": len(HOLES)}
    numbers = {"harbor-analytics": 100, "tiny-target": 102, "no-target": 103, "failed-calls": 104}
    for workspace, number in numbers.items():
        computed(engine, workspace, number)
    found = compared(engine)
    assert found.compared == 4 * DAYS
    assert len(found.uncomputed) == 18
    kinds = {(it.workspace, it.column, it.kind) for it in found.differences}
    # Its week had eight days, and its growth followed from that.
    weeks = {"positive_replies_last_7_days", "positive_replies_last_14_days"}
    of_harbor = {column for workspace, column, _ in kinds if workspace == "harbor-analytics"}
    assert weeks <= of_harbor
    assert of_harbor <= {
        *weeks,
        "positive_replies_last_30_days",
        "last_week_vs_week_before_progress",
    }
    assert ("tiny-target", "mtd_leads_progress", Kind.CLAMPED) in kinds
    assert ("no-target", "mtd_leads_progress", Kind.NONE_HERE) in kinds
    zeros = [it for it in found.differences if it.kind is Kind.ZERO and it.here]
    assert {it.metric_date for it in zeros if it.column == "emails_sent_mtd"} == {*FAILED}
    largest = found.largest("mtd_leads_progress")
    assert (largest.workspace, largest.old) == ("tiny-target", "999.99")
    assert largest.here is not None
    assert largest.here > Decimal("999.99")


def test_a_day_that_was_stored_twice_is_taken_as_it_was_written_last(
    engine: Engine, vault: Vault, source: URL
) -> None:
    with made(source) as connection:
        build_old_system(connection, AGENCY[10:12], LAST, days=3, schema="twice")
        connection.execute(
            text(
                "UPDATE client_metrics SET emails_sent_mtd = 7, updated_at = now() + interval '1 h'"
                " WHERE workspace_name = 'Twin (before)' AND metric_date = :day"
            ),
            {"day": LAST},
        )
    with reading(source) as connection:
        found = read_old_system(connection, "twice")
    done = taken(engine, vault, found)
    assert (done.rows, done.repeated) == (3, 3)
    latest = text("SELECT row ->> 'emails_sent_mtd' FROM old_metrics WHERE metric_date = :day")
    with engine.connect() as connection:
        assert connection.scalar(latest, {"day": LAST}) == "7"


def test_an_upgrade_in_the_old_systems_schema_says_what_to_do_and_changes_nothing(
    source: URL,
) -> None:
    engine = open_engine(source)
    try:
        with pytest.raises(KpiError) as refused:
            upgrade(engine)
        names = text(
            "SELECT count(*) FROM pg_class WHERE relname IN ('clients', 'alembic_version')"
        )
        with engine.connect() as connection:
            assert connection.scalar(names) == 0
    finally:
        engine.dispose()
    assert str(refused.value) == (
        "The schema public of this database holds client_latest_metrics, client_leads, "
        "client_metrics, client_registry and increment_metric of another system. Nothing was "
        "changed. To live beside it, set KPI_DATABASE_SCHEMA to a schema of its own, such as kpi. "
        "To take over the clients and rows of the old system, see `kpi migrate-from --help`; with "
        "--replace its tables are kept under another name, and ours take their place."
    )


def test_a_row_dated_after_today_is_counted(engine: Engine, vault: Vault, old: OldSystem) -> None:
    taken(engine, vault, last_day_of(old))
    with engine.connect() as connection:
        assert compare_old_rows(connection, date(2026, 3, 16)).in_future == 24
