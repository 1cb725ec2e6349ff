"""What an import changes of a client shows in all its stored rows, whatever happens meanwhile."""

import threading
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Engine

from kpi_pipeline.db.coordination.locks import lock_client
from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.db.registry.client_import import ClientRecord, import_clients
from kpi_pipeline.db.registry.clients import all_clients, relabel
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.tables import client_metrics, client_targets, clients, kpi_projections
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline_tests.db.stocked import (
    CHICAGO,
    MARCH,
    TODAY,
    imported,
    record,
    rows_of,
    stock_facts,
)
from kpi_pipeline_tests.db.support import run, until_somebody_waits

FEBRUARY, APRIL = date(2026, 2, 1), date(2026, 4, 1)
SEEN = datetime(2026, 3, 18, 6, 0, tzinfo=UTC)
TABLES = (kpi_projections, client_metrics)


def with_rows(engine: Engine, workspace: str, first: date = FEBRUARY, last: date = TODAY) -> None:
    """The client has facts, and rows from `first` to `last`."""
    with engine.begin() as connection:
        stock_facts(connection, workspace, date(2025, 12, 1), last)
        dates = days_between(first, last)
        update_rows(
            connection,
            [workspace],
            since=first,
            zone=CHICAGO,
            source="sync",
            dates=dates,
        )


def shown(engine: Engine, name: str, workspace: str = "harbor") -> dict[str, dict[date, Any]]:
    """A column of the client's rows, by table and date."""
    with engine.connect() as connection:
        return {
            table.name: {
                row["metric_date"]: row[name]
                for row in rows_of(connection, table)
                if row["workspace"] == workspace
            }
            for table in TABLES
        }


def labels(engine: Engine, workspace: str) -> set[tuple[str, str]]:
    """The names in the client's rows: Email Bison's, and the label."""
    with engine.connect() as connection:
        return {
            (row["workspace_name"], row["display_name"])
            for row in rows_of(connection, client_metrics)
            if row["workspace"] == workspace
        }


def test_a_new_target_shows_in_every_row_from_its_month_on(engine: Engine, vault: Vault) -> None:
    target = {"monthly_kpi_target": 60, "monthly_sending_target": 1_000}
    imported(engine, vault, record(101, "Harbor", **target), targets_from=FEBRUARY)
    with_rows(engine, "harbor")
    before = shown(engine, "updated_at")

    changed = {"monthly_kpi_target": 90, "monthly_sending_target": 2_000}
    imported(engine, vault, record(101, "Harbor", **changed), targets_from=MARCH)

    for table, rows in shown(engine, "monthly_kpi_target").items():
        assert rows == {it: 90 if it >= MARCH else 60 for it in days_between(FEBRUARY, TODAY)}, (
            table
        )
    for rows in shown(engine, "monthly_sending_target").values():
        assert (rows[MARCH], rows[date(2026, 2, 28)]) == (2_000, 1_000)
    for rows in shown(engine, "mtd_leads_progress").values():
        # 3 positive replies a day.
        assert (float(rows[date(2026, 3, 10)]), float(rows[date(2026, 2, 10)])) == (33.33, 50)
    for table, rows in shown(engine, "updated_at").items():
        assert {day for day in rows if rows[day] != before[table][day]} == set(
            days_between(MARCH, TODAY)
        )
    with engine.connect() as connection:
        sources = {it["metric_date"]: it["source"] for it in rows_of(connection, client_metrics)}
    assert (sources[MARCH], sources[FEBRUARY]) == ("import", "sync")


def test_a_target_of_an_earlier_month_leaves_the_rows_of_the_later_one(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(101, "Harbor", monthly_kpi_target=60), targets_from=MARCH)
    with_rows(engine, "harbor")
    imported(engine, vault, record(101, "Harbor", monthly_kpi_target=50), targets_from=FEBRUARY)
    for rows in shown(engine, "monthly_kpi_target").values():
        assert (rows[date(2026, 2, 28)], rows[MARCH]) == (50, 60)


def test_a_deleted_target_leaves_progress_null_from_its_month_on(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(101, "Harbor", monthly_kpi_target=60), targets_from=FEBRUARY)
    with_rows(engine, "harbor")
    imported(engine, vault, record(101, "Harbor", monthly_kpi_target=None), targets_from=MARCH)
    for rows in shown(engine, "mtd_leads_progress").values():
        assert rows[MARCH] is None
        assert rows[date(2026, 2, 28)] is not None


def test_a_target_of_a_later_month_changes_no_row_of_today(engine: Engine, vault: Vault) -> None:
    imported(engine, vault, record(101, "Harbor", monthly_kpi_target=60))
    with_rows(engine, "harbor")
    before = shown(engine, "updated_at")
    imported(engine, vault, record(101, "Harbor", monthly_kpi_target=90), targets_from=APRIL)
    assert shown(engine, "updated_at") == before


def test_a_new_label_shows_in_every_row_of_its_client_alone(engine: Engine, vault: Vault) -> None:
    imported(engine, vault, record(101, "Harbor"), record(102, "Quay"))
    for workspace in ("harbor", "quay"):
        with_rows(engine, workspace)
    imported(engine, vault, record(101, "Seaside", display_name="Sea"))
    assert labels(engine, "harbor") == {("Seaside", "Sea")}
    assert labels(engine, "quay") == {("Quay", "Quay")}


def test_a_name_that_email_bison_has_changed_shows_in_every_row(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(101, "Harbor"), record(102, "Quay", display_name="Q"))
    for workspace in ("harbor", "quay"):
        with_rows(engine, workspace)
    with engine.begin() as connection:
        relabel(connection, {"harbor": "Seaside", "quay": " Pier "}, SEEN)
    assert labels(engine, "harbor") == {("Seaside", "Seaside")}
    assert labels(engine, "quay") == {("Pier", "Q")}


def test_an_import_that_is_rolled_back_leaves_clients_and_rows_as_they_were(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(101, "Harbor"))
    with_rows(engine, "harbor")

    def stored() -> object:
        with engine.connect() as connection:
            return [rows_of(connection, it) for it in (clients, client_targets, *TABLES)]

    before = stored()
    with engine.connect() as connection:
        records = [record(101, "Seaside", monthly_kpi_target=1), record(102, "Quay")]
        import_clients(connection, records, targets_from=MARCH, vault=vault, zone=CHICAGO)
        connection.rollback()
    assert stored() == before


def importing(engine: Engine, vault: Vault, *records: ClientRecord) -> threading.Thread:
    """An import that has begun in a thread."""
    thread = threading.Thread(target=imported, args=(engine, vault, *records))
    thread.start()
    return thread


def test_two_imports_at_once_give_new_clients_of_one_name_two_workspaces(
    engine: Engine, other_engine: Engine, vault: Vault
) -> None:
    with other_engine.begin() as connection:
        first = [record(101, "Harbor")]
        import_clients(connection, first, targets_from=MARCH, vault=vault, zone=CHICAGO)
        second = importing(engine, vault, record(102, "Harbor"))
        run(until_somebody_waits(engine))
    second.join(60)
    with engine.connect() as connection:
        found = {it.bison_workspace_id: it.workspace for it in all_clients(connection)}
    assert found == {101: "harbor", 102: "harbor-2"}


def test_an_import_waits_for_a_sync_that_works_out_the_clients_rows(
    engine: Engine, other_engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(101, "Harbor", monthly_kpi_target=60))
    with other_engine.begin() as connection:
        lock_client(connection, "harbor")
        second = importing(engine, vault, record(101, "Harbor", monthly_kpi_target=90))
        run(until_somebody_waits(engine))
        # With the target of before.
        stock_facts(connection, "harbor")
        update_rows(
            connection,
            ["harbor"],
            since=TODAY,
            zone=CHICAGO,
            source="sync",
            dates=[TODAY],
        )
    second.join(60)
    for rows in shown(engine, "monthly_kpi_target").values():
        assert rows == {TODAY: 90}


def test_an_import_waits_for_no_transaction_that_has_stored_inputs_and_takes_the_lock_later(
    engine: Engine, other_engine: Engine, vault: Vault
) -> None:
    # Otherwise each could wait for the other.
    imported(engine, vault, record(101, "Harbor"))
    with other_engine.begin() as connection:
        stock_facts(connection, "harbor")
        second = importing(engine, vault, record(101, "Seaside", monthly_kpi_target=1))
        second.join(60)
        assert not second.is_alive()
        lock_client(connection, "harbor")
    with engine.connect() as connection:
        assert [client.name for client in all_clients(connection)] == ["Seaside"]
