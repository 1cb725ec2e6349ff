"""`kpi migrate-from`, and the rights of readers, as an operator types them."""

import csv
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine, create_engine, text

from kpi_pipeline.db.facts import store_facts
from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.db.registry.clients import all_clients
from kpi_pipeline.db.tables import client_metrics, client_targets, clients, old_metrics
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.cli.running import Kpi, address, calm_zone, days_ago, rows_of
from kpi_pipeline_tests.db.old_system import DAYS, OldWorkspace, build_old_system, facts_of
from kpi_pipeline_tests.installed_postgres import installed_postgres

TABLES = (clients, client_targets, old_metrics, client_metrics)


def agency_of(bison: Bison) -> list[OldWorkspace]:
    """The sandbox's clients as the old registry had them, some names with blanks."""
    return [
        OldWorkspace(
            int(row["bison_workspace_id"]),
            f" {row['name']} " if number % 5 == 0 else str(row["name"]),
            target=40 + number,
        )
        for number, row in enumerate(bison.clients())
    ]


def build(url: URL, agency: list[OldWorkspace], days: int = DAYS) -> None:
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            build_old_system(connection, agency, days_ago(1), days=days)
    finally:
        engine.dispose()


def compute(url: URL, schema: str, workspaces: int, days: int) -> None:
    """Facts and rows of those last days, for the first clients, as a backfill makes them."""
    engine = create_engine(
        url, connect_args={"options": f"-c search_path={schema} -c timezone=UTC"}
    )
    dates = days_between(days_ago(days), days_ago(1))
    try:
        with engine.begin() as connection:
            for it in all_clients(connection)[:workspaces]:
                facts = facts_of(it.bison_workspace_id, days_ago(days + 62), days_ago(0))
                store_facts(connection, it.workspace, facts, datetime.now(UTC))
                update_rows(
                    connection,
                    [it.workspace],
                    since=dates[0],
                    zone=calm_zone(),
                    source="sync",
                    dates=dates,
                )
    finally:
        engine.dispose()


@pytest.fixture
def old(
    live_bison: Bison, postgres: URL, administer: Callable[[str], None]
) -> Iterator[tuple[URL, list[OldWorkspace]]]:
    """An empty database for the old system, and its clients."""
    name = f"kpi_old_{uuid.uuid4().hex}"
    administer(f"CREATE DATABASE {name}")
    yield postgres.set(database=name), agency_of(live_bison)
    administer(f"DROP DATABASE {name} WITH (FORCE)")


def test_all_is_taken_from_another_database_once_and_the_differences_are_written(
    kpi: Kpi, old: tuple[URL, list[OldWorkspace]], engine: Engine, tmp_path: Path
) -> None:
    url, agency = old
    build(url, agency[:5], days=20)
    rows = "100 rows"
    tried = kpi("migrate-from", address(url), "--dry-run").answer()
    assert f"Would be taken: 5 clients (5 new), targets of 5 from {days_ago(20):%Y-%m}" in tried
    assert all(found == [] for found in rows_of(engine, *TABLES).values())
    answer = kpi("migrate-from", address(url)).answer()
    assert f"5 clients, {rows}, {days_ago(20)} to {days_ago(1)}." in answer
    assert f"Not computed here yet: {rows} of 5 clients. Run `kpi backfill --from" in answer
    compute(engine.url, "public", 3, 20)
    before = rows_of(engine, *TABLES)
    file = tmp_path / "differences.csv"
    again = kpi("migrate-from", address(url), "--differences", str(file)).answer()
    assert f"Nothing is new: 5 clients and {rows} were here already." in again
    assert rows_of(engine, *TABLES) == before
    assert "of 60 rows are equal in every number." in again
    assert "│ positive_replies_last_7_days " in again
    with file.open(encoding="utf-8") as opened:
        assert next(csv.reader(opened))[:3] == ["workspace", "metric_date", "column"]


def test_what_can_not_be_done_is_a_sentence(
    kpi: Kpi, old: tuple[URL, list[OldWorkspace]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, agency = old
    build(url, agency[:2], days=2)
    assert "is that of another one" in kpi("migrate-from", address(url), "--replace").error()
    assert (
        "run --dry-run without it"
        in kpi("migrate-from", address(url), "--replace", "--dry-run").error()
    )
    assert (
        "is not of the form OLD=NAME"
        in kpi("migrate-from", address(url), "--instance", "main").error()
    )
    wrong = url.set(database="nowhere_at_all")
    error = kpi("migrate-from", address(wrong)).error()
    assert "nowhere_at_all" in error
    assert "PaSsWoRd" not in error
    monkeypatch.setenv("KPI_BISON_INSTANCES", "")
    assert "No Email Bison is configured" in kpi("migrate-from", address(url)).error()


def test_a_client_that_can_not_be_taken_is_named_and_the_others_are_taken(
    kpi: Kpi, old: tuple[URL, list[OldWorkspace]]
) -> None:
    url, agency = old
    build(url, [*agency[:2], OldWorkspace(None, "Nobody Knows")], days=2)
    result = kpi("migrate-from", address(url))
    assert result.code == 1
    assert "Taken: 2 clients (2 new)" in result.out
    assert "Not taken: Nobody Knows: it has no Bison workspace id" in result.err
    assert "Not taken: 2 rows of 'Nobody Knows'" in result.err


def test_ours_take_the_place_of_the_old_tables_in_the_same_schema(
    kpi: Kpi,
    old: tuple[URL, list[OldWorkspace]],
    dagster_database: URL,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, agency = old
    build(url, agency[:3], days=3)
    monkeypatch.setenv("KPI_DATABASE_URL", address(url))
    monkeypatch.setenv("KPI_DAGSTER_DATABASE_URL", address(dagster_database))
    refused = kpi("db", "upgrade").error()
    assert "holds client_latest_metrics, client_leads, client_metrics" in refused
    answer = kpi("migrate-from", address(url), "--replace").answer()
    assert "Taken: 3 clients (3 new)" in answer
    assert "public.client_metrics is kept as public.client_metrics_replaced." in answer
    assert "Not computed here yet: 9 rows of 3 clients." in answer
    again = kpi("migrate-from", address(url), "--replace").answer()
    assert "Nothing is new: 3 clients and 9 rows were here already." in again
    opened = create_engine(url)
    with opened.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM client_metrics_replaced")) == 9
        assert connection.scalar(text("SELECT count(*) FROM client_registry")) == 3
    opened.dispose()


def test_ours_live_beside_the_old_tables_and_take_their_place_once_no_row_is_missing(
    kpi: Kpi,
    old: tuple[URL, list[OldWorkspace]],
    dagster_database: URL,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, agency = old
    build(url, agency[:2], days=3)
    monkeypatch.setenv("KPI_DATABASE_URL", address(url))
    monkeypatch.setenv("KPI_DATABASE_SCHEMA", "kpi")
    monkeypatch.setenv("KPI_DAGSTER_DATABASE_URL", address(dagster_database))
    kpi("db", "upgrade").answer()
    refused = kpi("migrate-from", address(url), "--replace")
    assert refused.code == 1
    assert "Readers would lose 6 rows, which nobody computed here yet." in refused.err
    compute(url, "kpi", 2, 3)
    answer = kpi("migrate-from", address(url), "--replace").answer()
    assert "public.client_registry is kept as public.client_registry_replaced." in answer
    opened = create_engine(url)
    with opened.connect() as connection:
        for name, rows in {
            "client_registry": 2,
            "client_metrics": 6,
            "client_metrics_replaced": 6,
        }.items():
            assert connection.scalar(text(f"SELECT count(*) FROM public.{name}")) == rows
    opened.dispose()


def test_a_reader_is_granted_and_revoked_by_name(
    kpi: Kpi, configured: URL, administer: Callable[[str], None], engine: Engine
) -> None:
    role = f"bi_{uuid.uuid4().hex}"
    assert f"There is no role {role}. Create it first" in kpi("db", "grant-reader", role).error()
    administer(f"CREATE ROLE {role}")
    try:
        assert f"{role} reads 13 tables and views" in kpi("db", "grant-reader", role).answer()
        may_read = text("SELECT has_table_privilege(:role, 'client_metrics', 'SELECT')")
        with engine.connect() as connection:
            assert connection.scalar(may_read, {"role": role})
        assert "reads nothing" in kpi("db", "revoke-reader", role).answer()
        assert "was no reader" in kpi("db", "revoke-reader", role).error()
    finally:
        administer(f"DROP ROLE {role}")


@pytest.mark.long
def test_all_is_taken_from_another_server(kpi: Kpi, live_bison: Bison, engine: Engine) -> None:
    with installed_postgres() as server:
        url = server.set(database="postgres")
        build(url, agency_of(live_bison))
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        assert "Taken: 26 clients (26 new)" in kpi("migrate-from", plain).answer()
        before = rows_of(engine, *TABLES)
        assert "Nothing is new" in kpi("migrate-from", plain).answer()
        assert rows_of(engine, *TABLES) == before
        assert len(before["old_metrics"]) == 26 * DAYS
