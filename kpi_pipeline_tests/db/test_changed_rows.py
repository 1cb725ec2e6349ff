"""Rows of client_metrics that change are listed, whatever changes them."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, text, update

from kpi_pipeline.db.changed_rows import (
    ChangedRow,
    delete_changed_rows,
    note_checked,
    read_changed_rows,
)
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline.domain.columns import PARTITION_COLUMNS
from kpi_pipeline_tests.db.stocked import AS_OF, TODAY, imported, record, stock_metrics

SHOWN = ("display_name", *PARTITION_COLUMNS)
LATER = AS_OF + timedelta(days=3650)


@pytest.fixture
def engine(engine: Engine, vault: Vault) -> Engine:
    imported(engine, vault, record(), record(102, "Quay Robotics"))
    return engine


def listed(engine: Engine) -> list[ChangedRow]:
    """All rows on the list."""
    with engine.connect() as connection:
        return read_changed_rows(
            connection, 100, checked_before=LATER, in_runs=[], changed_before=LATER
        )


def clear(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM changed_rows"))


@pytest.mark.parametrize("column", SHOWN)
def test_a_row_is_listed_when_a_value_changes_that_its_partition_shows(
    engine: Engine, column: str
) -> None:
    stock_metrics(engine, "harbor-analytics", TODAY)
    clear(engine)
    changed = {column: "another label" if column == "display_name" else 7}

    with engine.begin() as connection:
        connection.execute(update(client_metrics).values(changed))

    assert [(it.workspace, it.metric_date) for it in listed(engine)] == [
        ("harbor-analytics", TODAY)
    ]


def test_a_row_that_is_written_again_without_another_number_is_not_listed(engine: Engine) -> None:
    stock_metrics(engine, "harbor-analytics", TODAY, positive_replies_mtd=3)
    clear(engine)

    with engine.begin() as connection:
        for column in SHOWN:
            same = {column: client_metrics.c[column]}
            connection.execute(update(client_metrics).values(same))
        later = {"as_of": LATER, "updated_at": LATER, "source": "recompute"}
        connection.execute(update(client_metrics).values(later))

    assert listed(engine) == []


def test_a_new_row_is_listed_unless_a_sync_wrote_it_for_a_past_date(engine: Engine) -> None:
    stock_metrics(engine, "harbor-analytics", TODAY, source="sync")
    assert listed(engine) == []
    stock_metrics(engine, "quay-robotics", TODAY, source="webhook")
    assert [it.workspace for it in listed(engine)] == ["quay-robotics"]


def test_the_list_begins_with_the_latest_date_and_ends_at_the_limit(engine: Engine) -> None:
    for days in (2, 0, 1):
        day = TODAY - timedelta(days=days)
        stock_metrics(engine, "harbor-analytics", day, source="webhook")
    with engine.connect() as connection:
        first = read_changed_rows(
            connection, 2, checked_before=LATER, in_runs=[], changed_before=LATER
        )
    assert [TODAY - it.metric_date for it in first] == [timedelta(0), timedelta(days=1)]


def test_a_row_that_was_checked_is_due_again_later(engine: Engine) -> None:
    stock_metrics(engine, "harbor-analytics", TODAY, source="webhook")
    with engine.begin() as connection:
        note_checked(connection, listed(engine), AS_OF)

    def due(checked_before: datetime) -> int:
        with engine.connect() as connection:
            return len(
                read_changed_rows(
                    connection,
                    9,
                    checked_before=checked_before,
                    in_runs=[],
                    changed_before=LATER,
                )
            )

    assert due(AS_OF - timedelta(seconds=1)) == 0
    assert due(AS_OF) == 1


def test_a_row_that_changes_while_it_is_reported_stays_on_the_list(engine: Engine) -> None:
    stock_metrics(engine, "harbor-analytics", TODAY, source="webhook")
    stock_metrics(engine, "quay-robotics", TODAY, source="webhook")
    read = listed(engine)
    with engine.begin() as connection:
        one = client_metrics.c.workspace == "quay-robotics"
        connection.execute(update(client_metrics).where(one).values(positive_replies_mtd=1))

    with engine.begin() as connection:
        delete_changed_rows(connection, read)

    assert [it.workspace for it in listed(engine)] == ["quay-robotics"]


def test_a_writer_of_the_table_needs_no_right_to_the_list(engine: Engine) -> None:
    stock_metrics(engine, "harbor-analytics", TODAY)
    role = text("CREATE ROLE metrics_writer")
    with engine.connect() as connection, connection.begin() as transaction:
        connection.execute(role)
        connection.execute(text("GRANT SELECT, UPDATE ON client_metrics TO metrics_writer"))
        connection.execute(text("SET LOCAL ROLE metrics_writer"))
        connection.execute(update(client_metrics).values(positive_replies_mtd=9))
        connection.execute(text("RESET ROLE"))
        assert connection.scalar(text("SELECT count(*) FROM changed_rows")) == 1
        transaction.rollback()
