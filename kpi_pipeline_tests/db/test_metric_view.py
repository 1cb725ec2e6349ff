from dataclasses import fields
from datetime import date, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, update

from kpi_pipeline.db.facts import SendingPlan, store_plan
from kpi_pipeline.db.metrics import MetricRow, read_metrics
from kpi_pipeline.db.recompute import write_rows
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline_tests.db.stocked import (
    AS_OF,
    TODAY,
    imported,
    record,
    rows_of,
    stock_facts,
)

YESTERDAY = TODAY - timedelta(days=1)
CHICAGO = ZoneInfo("America/Chicago")
LABELS = {"workspace", "display_name"}
# These clients have none.
SENDING_TARGET = {"monthly_sending_target", "sending_progress", "projection_sending_progress"}


@pytest.fixture(autouse=True)
def _clients_of_which_one_has_numbers(engine: Engine, vault: Vault) -> None:
    imported(
        engine,
        vault,
        record(103, "Sloop", active=False),
        record(102, "Quay", display_name="Quay & Co"),
        record(101, "Harbor"),
        record(104, "Anchor"),
    )
    with engine.begin() as connection:
        for workspace, replies in (("harbor", 3), ("sloop", 4)):
            stock_facts(connection, workspace, interested=replies)
            store_plan(connection, workspace, SendingPlan(TODAY, 320, 350, AS_OF))
            write_rows(connection, {workspace: [YESTERDAY, TODAY]}, CHICAGO, "sync")


def read(engine: Engine, day: date, workspaces: list[str] | None = None) -> list[MetricRow]:
    with engine.connect() as connection:
        return read_metrics(connection, day, workspaces)


def test_each_active_client_has_a_row_with_or_without_numbers(engine: Engine) -> None:
    rows = read(engine, TODAY)
    assert [(row.workspace, row.display_name) for row in rows] == [
        ("anchor", "Anchor"),
        ("harbor", "Harbor"),
        ("quay", "Quay & Co"),
    ]
    assert [row.positive_replies_mtd for row in rows] == [None, 54, None]


def test_a_client_without_numbers_has_none_of_them(engine: Engine) -> None:
    anchor = read(engine, TODAY)[0]
    assert {name for name, value in vars(anchor).items() if value is not None} == LABELS


def test_a_date_without_any_row_still_lists_every_active_client(engine: Engine) -> None:
    rows = read(engine, TODAY + timedelta(days=1))
    assert [row.workspace for row in rows] == ["anchor", "harbor", "quay"]
    assert [row.as_of for row in rows] == [None, None, None]


def test_each_number_has_the_name_of_its_column(engine: Engine) -> None:
    with engine.connect() as connection:
        stored = {
            (row["workspace"], row["metric_date"]): row
            for row in rows_of(connection, client_metrics)
        }
    shown = read(engine, TODAY)[1]
    row = stored["harbor", TODAY]
    assert vars(shown) == {field.name: row[field.name] for field in fields(MetricRow)}
    assert {name for name, value in vars(shown).items() if value is None} == SENDING_TARGET


def test_a_past_day_shows_that_days_row(engine: Engine) -> None:
    assert read(engine, YESTERDAY)[1].positive_replies_mtd == 51


def test_clients_asked_for_by_key_are_shown_even_if_inactive(engine: Engine) -> None:
    rows = read(engine, TODAY, ["sloop", "anchor"])
    assert [(row.workspace, row.positive_replies_mtd) for row in rows] == [
        ("anchor", None),
        ("sloop", 72),
    ]


def test_rows_of_another_metric_type_are_not_shown(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            update(client_metrics)
            .where(client_metrics.c.workspace == "harbor", client_metrics.c.metric_date == TODAY)
            .values(metric_type="ytd")
        )
    rows = read(engine, TODAY)
    assert [(row.workspace, row.positive_replies_mtd) for row in rows] == [
        ("anchor", None),
        ("harbor", None),
        ("quay", None),
    ]
