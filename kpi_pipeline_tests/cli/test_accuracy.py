import csv
import io
import json
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import URL, Engine

from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.domain.calendar import days_in_month, first_of_previous_month
from kpi_pipeline_tests.cli.running import Kpi, address, calm_zone, cells, days_ago
from kpi_pipeline_tests.db.stocked import imported, record, stock_metrics

LAST_MONTH = first_of_previous_month(days_ago(0))
MONTH_BEFORE = first_of_previous_month(LAST_MONTH)
# Projected on the 10th and the 20th, and counted in the end; ten times as many emails.
HARBOR = (1200, 900, 1000)


@pytest.fixture(autouse=True)
def _stocked(database: URL, engine: Engine, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KPI_DATABASE_URL", address(database))
    monkeypatch.setenv("KPI_TIMEZONE", calm_zone().key)
    imported(engine, vault, record(101, "Harbor [EU]"), record(102, "Quay"))
    for first in (LAST_MONTH, MONTH_BEFORE):
        tenth, twentieth, actual = HARBOR
        for day, projected in ((10, tenth), (20, twentieth)):
            store(engine, "harbor-eu", first.replace(day=day), projected, 1)
        store(engine, "harbor-eu", first.replace(day=days_in_month(first)), 2, actual)
    # Quay became a client in the middle of last month.
    store(engine, "quay", LAST_MONTH.replace(day=20), 70, 1)
    store(engine, "quay", LAST_MONTH.replace(day=days_in_month(LAST_MONTH)), 2, 0)


def store(engine: Engine, workspace: str, day: date, projected: int, replies: int) -> None:
    stock_metrics(
        engine,
        workspace,
        day,
        projection_positive_replies_eom=projected,
        projection_emails_eom=10 * projected,
        positive_replies_mtd=replies,
        emails_sent_mtd=10 * replies,
    )


HARBORS_CELLS = ["1,200", "+20.0", "900", "-10.0", "1,000", "12,000", "+20.0", "9,000", "-10.0"]


def test_the_table_shows_each_client_and_all_of_them_month_by_month(kpi: Kpi) -> None:
    screen = kpi("accuracy", "--months", "1").answer()
    assert f"{LAST_MONTH:%Y-%m}" in screen
    assert f"{MONTH_BEFORE:%Y-%m}" not in screen
    assert cells(screen, "Harbor [EU]")[1:] == [*HARBORS_CELLS, "10,000"]
    assert cells(screen, "Quay")[1:] == ["–", "–", "70", "–", "0", "–", "–", "700", "–", "0"]
    assert cells(screen, "1 of 2 clients")[1:] == [*HARBORS_CELLS, "10,000"]


def test_json_has_a_row_for_each_client_and_month_and_null_for_what_is_not_known(kpi: Kpi) -> None:
    rows = json.loads(kpi("accuracy", "--format", "json").answer())
    three_months = [first_of_previous_month(MONTH_BEFORE), MONTH_BEFORE, LAST_MONTH]
    assert [(row["month"], row["workspace"], row["clients"]) for row in rows] == [
        (f"{month:%Y-%m}", workspace, clients)
        for month, complete in zip(three_months, (0, 1, 1), strict=True)
        for workspace, clients in (("harbor-eu", 1), ("quay", 1), (None, complete))
    ]
    assert {*rows[0].values()} == {
        *(f"{three_months[0]:%Y-%m}", "harbor-eu", "Harbor [EU]", 1, None)
    }
    harbor: dict[str, Any] = rows[-3]
    assert harbor["display_name"] == "Harbor [EU]"
    assert (harbor["positive_replies_projected_10th"], harbor["emails_actual"]) == (1200, 10_000)
    assert harbor["positive_replies_error_20th"] == -10.0
    assert rows[-2]["positive_replies_error_20th"] is None
    assert rows[-1]["display_name"] == "All clients"


def test_csv_has_the_columns_of_json_and_empty_fields(kpi: Kpi) -> None:
    rows = list(
        csv.DictReader(io.StringIO(kpi("accuracy", "--format", "csv").answer()), strict=True)
    )
    in_json = json.loads(kpi("accuracy", "--format", "json").answer())
    assert [*rows[0]] == [*in_json[0]]
    assert len(rows) == len(in_json)
    for row, same in zip(rows, in_json, strict=True):
        for name, text in row.items():
            value = same[name]
            if isinstance(value, int | float):
                assert float(text) == value, name
            else:
                assert text == (value or ""), name


def test_one_client_can_be_asked_for(kpi: Kpi) -> None:
    screen = kpi("accuracy", "-w", "quay", "--months", "1").answer()
    assert "Harbor" not in screen
    assert cells(screen, "0 of 1 client")[1:] == ["–"] * 10
    assert kpi("accuracy", "-w", "nobody").error() == (
        "There is no client nobody. `kpi clients list` shows the workspaces."
    )


def test_a_row_of_this_month_is_no_past_one(kpi: Kpi, engine: Engine) -> None:
    this_month = (LAST_MONTH + timedelta(days=31)).replace(day=1)
    store(engine, "quay", this_month.replace(day=10), 1, 1)
    rows = json.loads(kpi("accuracy", "--format", "json", "--months", "2").answer())
    assert {row["month"] for row in rows} == {f"{MONTH_BEFORE:%Y-%m}", f"{LAST_MONTH:%Y-%m}"}
