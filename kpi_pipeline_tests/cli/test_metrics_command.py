import csv
import io
import json
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import URL, Engine

from kpi_pipeline.cli import common
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.tables import client_metrics
from kpi_pipeline_tests.cli.running import Kpi, address, cells, days_ago, rows_of
from kpi_pipeline_tests.db.stocked import AS_OF, imported, record, stock_metrics

DAY = date(2026, 3, 18)
NAMES = {"brule-cafe-eu": "Brûlé Café [EU]", "heron-tide": "Heron Tide", "lark-mill": "Lark, Mill"}
# Of three active clients two have a row on DAY; each has a row on another day as well.
HERON: Mapping[str, Any] = {
    "positive_replies_today": 0,
    "positive_replies_mtd": 1268,
    "projection_positive_replies_eom": 2114,
    "monthly_kpi_target": 60,
    "mtd_leads_progress": Decimal("2113.33"),
    "positive_replies_last_7_days": 17,
    "positive_replies_last_30_days": 19,
    "positive_replies_last_month": 23,
    "emails_sent_today": 5317,
    "emails_sent_mtd": 141739,
    "last_week_vs_week_before_progress": Decimal("-17.65"),
    "emails_scheduled_today": 8758,
    "sending_progress": Decimal("94.49"),
    "bounce_rate_mtd": Decimal("1.50"),
}


@pytest.fixture(autouse=True)
def _stocked(database: URL, engine: Engine, vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KPI_DATABASE_URL", address(database))
    active = [record(number, name) for number, name in enumerate(NAMES.values(), 101)]
    imported(engine, vault, *active, record(109, "Otter Gone", active=False))
    stock_metrics(engine, "heron-tide", DAY, **HERON)
    stock_metrics(engine, "brule-cafe-eu", DAY, positive_replies_mtd=0)
    stock_metrics(engine, "otter-gone", DAY, positive_replies_mtd=77)
    for workspace in NAMES:
        stock_metrics(engine, workspace, date(2026, 3, 17), positive_replies_mtd=999)


def _in_database(engine: Engine) -> Mapping[str, Mapping[str, Any]]:
    rows = rows_of(engine, client_metrics)["client_metrics"]
    return {row["workspace"]: row for row in rows if row["metric_date"] == DAY}


def test_the_table_lists_every_active_client_with_or_without_a_row(kpi: Kpi) -> None:
    result = kpi("metrics", "--date", "2026-03-18")
    screen = result.answer()
    assert "client_metrics of 2026-03-18" in screen
    heads = [it.replace("│", "┃").split("┃") for it in screen.splitlines() if "┃" in it]
    headings = [" ".join(" ".join(it).split()) for it in zip(*heads, strict=True)]
    assert headings[2:8] == [
        "Positive replies today",
        "Positive replies this month",
        "Projection",
        "Target",
        "% of target",
        "Positive replies 7 days",
    ]
    assert cells(screen, "Heron Tide")[1:] == [
        *("0", "1,268", "2,114", "60", "2,113.33", "17", "19", "23", "5,317", "141,739"),
        *("94.49", "1.50"),
    ]
    assert cells(screen, "Brûlé Café [EU]")[1:] == ["–", "0", *"–" * 10]
    assert cells(screen, "Lark, Mill")[1:] == [*"–" * 12]
    assert "otter" not in screen
    assert result.err == "2 of 3 clients have a row on 2026-03-18.\n"


def test_no_number_is_cut_short_on_a_narrow_screen(
    kpi: Kpi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common.out, "width", 60)
    screen = kpi("metrics", "--date", "2026-03-18").answer()
    assert cells(screen, "Heron Tide")[-3:] == ["141,739", "94.49", "1.50"]
    assert "…" not in screen


def test_json_holds_the_numbers_of_the_database(kpi: Kpi, engine: Engine) -> None:
    result = kpi("metrics", "--date", "2026-03-18", "--format", "json")
    rows = json.loads(result.answer())
    stored = _in_database(engine)
    assert [row["workspace"] for row in rows] == list(NAMES)
    for row in rows:
        assert row.pop("display_name") == NAMES[row["workspace"]]
        as_of = row.pop("as_of")
        known = stored.get(row["workspace"])
        if known is None:
            assert {*row.values(), as_of} == {row["workspace"], None}
            continue
        assert datetime.fromisoformat(as_of) == AS_OF
        for name, value in row.items():
            expected = known[name]
            assert value == (float(expected) if isinstance(expected, Decimal) else expected), name
    assert result.err == "2 of 3 clients have a row on 2026-03-18.\n"


def test_csv_holds_the_numbers_of_the_database_and_null_is_empty(kpi: Kpi, engine: Engine) -> None:
    result = kpi("metrics", "--date", "2026-03-18", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.answer()), strict=True))
    stored = _in_database(engine)
    assert [row["display_name"] for row in rows] == list(NAMES.values())
    for row in rows:
        known = stored.get(row["workspace"])
        for name, text in row.items():
            if name in ("workspace", "display_name"):
                continue
            value = known[name] if known else None
            if value is None:
                assert text == "", name
            elif name == "as_of":
                assert datetime.fromisoformat(text) == AS_OF
            else:
                assert Decimal(text) == value, name
    assert result.err == "2 of 3 clients have a row on 2026-03-18.\n"


def test_no_name_is_a_formula_in_csv(kpi: Kpi, engine: Engine, vault: Vault) -> None:
    imported(engine, vault, record(110, "=1+1"))
    lines = kpi("metrics", "--date", "2026-03-18", "--format", "csv").answer().splitlines()
    assert any(line.startswith("1-1,'=1+1,") for line in lines)


def test_json_and_csv_have_the_same_columns(kpi: Kpi) -> None:
    rows = json.loads(kpi("metrics", "--format", "json").answer())
    header = kpi("metrics", "--format", "csv").answer().splitlines()[0]
    assert {",".join(row) for row in rows} == {header}


def test_one_client_can_be_asked_for(kpi: Kpi) -> None:
    words = ("metrics", "--date", "2026-03-18", "--format", "json")
    result = kpi(*words, "--workspace", "lark-mill", "-w", "heron-tide")
    assert [row["workspace"] for row in json.loads(result.answer())] == ["heron-tide", "lark-mill"]
    assert result.err == "1 of 2 clients have a row on 2026-03-18.\n"


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_an_unknown_or_inactive_client_is_refused_in_every_format(kpi: Kpi, form: str) -> None:
    words = ("metrics", "--format", form, "--workspace")
    problem = kpi(*words, "nobody", "-w", "heron-tide").error()
    assert problem == "There is no client nobody. `kpi clients list` shows the workspaces."
    assert kpi(*words, "otter-gone").error().startswith("Not active: otter-gone.")


def test_without_a_date_it_is_todays_and_a_day_without_rows_shows_dashes_not_zeros(
    kpi: Kpi,
) -> None:
    result = kpi("metrics")
    assert cells(result.answer(), "Heron Tide")[1:] == [*"–" * 12]
    assert result.err.startswith("0 of 3 clients have a row on 20")
    result = kpi("metrics", "--date", days_ago(40).isoformat())
    assert f"client_metrics of {days_ago(40)}" in result.answer()


def test_a_past_day_shows_that_days_numbers(kpi: Kpi) -> None:
    result = kpi("metrics", "--date", "2026-03-17", "--format", "json")
    assert [row["positive_replies_mtd"] for row in json.loads(result.answer())] == [999] * 3
    assert result.err == "3 of 3 clients have a row on 2026-03-17.\n"


def test_an_unknown_format_is_a_usage_error(kpi: Kpi) -> None:
    result = kpi("metrics", "--format", "xlsx")
    assert (result.code, result.out) == (2, "")
    assert "'xlsx'" in result.err
