"""Thresholds of clients: imported, exported with all that an import can change, and set alone."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.registry.client_import import ImportPlan, plan_import, write_import
from kpi_pipeline.db.registry.clients import relabel
from kpi_pipeline.db.registry.clients_csv import COLUMNS, export, parse
from kpi_pipeline.db.registry.thresholds import Thresholds, read_thresholds, set_thresholds
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline_tests.db.stocked import CHICAGO, MARCH, api_key, imported, record

SHORT = "instance,bison_workspace_id,name"
BOTH = f"{SHORT},max_sending_shortfall,min_reply_rate"


def imports(engine: Engine, vault: Vault, text: str) -> ImportPlan:
    records = parse(text, ["main"], "clients.csv")
    with engine.begin() as connection:
        plan = plan_import(connection, records, targets_from=MARCH, vault=vault)
        write_import(connection, plan, vault=vault, zone=CHICAGO)
    return plan


def stored(engine: Engine) -> dict[str, Thresholds]:
    with engine.connect() as connection:
        return read_thresholds(connection)


def exported(engine: Engine, month: date = MARCH) -> str:
    with engine.connect() as connection:
        return export(connection, month)


def test_an_import_sets_thresholds_and_leaves_them_where_it_has_no_such_column(
    engine: Engine, vault: Vault
) -> None:
    imports(engine, vault, f"{BOTH}\nmain,11,Harbor,25,0.15\nmain,12,Quay,,\n")
    expected = {"harbor": Thresholds(Decimal(25), Decimal("0.15")), "quay": Thresholds()}
    assert stored(engine) == expected
    assert imports(engine, vault, f"{SHORT}\nmain,11,Harbor\n").summary() == "1 unchanged"
    assert stored(engine) == expected


def test_a_change_is_described_and_a_blank_cell_lets_the_default_hold_unasked(
    engine: Engine, vault: Vault
) -> None:
    imports(engine, vault, f"{BOTH}\nmain,11,Harbor,25,0.15\n")
    plan = imports(engine, vault, f"{BOTH}\nmain,11,Harbor,12.5,\n")
    assert plan.summary() == "2 thresholds"
    assert plan.descriptions() == [
        "harbor: max_sending_shortfall 25 % → 12.5 %, min_reply_rate 0.15 % → –"
    ]
    assert plan.risks() == []
    assert stored(engine) == {"harbor": Thresholds(Decimal("12.5"), None)}


def test_one_threshold_is_set_and_removed_while_all_else_stays(
    engine: Engine, vault: Vault
) -> None:
    imports(engine, vault, f"{BOTH}\nmain,11,Harbor,25,0.15\nmain,12,Quay,30,0.5\n")
    with engine.begin() as connection:
        set_thresholds(connection, "harbor", {"min_reply_rate": Decimal("0.2")})
        set_thresholds(connection, "quay", {"max_sending_shortfall": None})
    assert stored(engine) == {
        "harbor": Thresholds(Decimal(25), Decimal("0.2")),
        "quay": Thresholds(None, Decimal("0.5")),
    }


def test_an_export_has_every_client_with_the_targets_of_the_month_and_no_api_key(
    engine: Engine, vault: Vault
) -> None:
    own_key = api_key(7)
    targets = {"monthly_kpi_target": 60, "monthly_sending_target": 30_000}
    imported(engine, vault, record(11, "Harbor, West", api_key=own_key, **targets))
    imported(engine, vault, record(12, "Quay", display_name="The Quay", active=False))
    with engine.begin() as connection:
        set_thresholds(connection, "harbor-west", {"min_reply_rate": Decimal("0.2")})
    text = exported(engine)
    assert text.splitlines() == [
        ",".join(COLUMNS),
        'main,11,"Harbor, West",,yes,60,30000,,0.2,',
        "main,12,Quay,The Quay,no,60,,,,",
    ]
    assert exported(engine, date(2026, 2, 1)).splitlines()[2] == "main,12,Quay,The Quay,no,,,,,"


@pytest.mark.parametrize("name", ["=1+1", "+49 Freight", "-Dash-", "@home", "'=quoted", "'Tis"])
def test_a_file_that_was_exported_changes_nothing_when_it_is_imported_again(
    engine: Engine, vault: Vault, name: str
) -> None:
    imported(engine, vault, record(11, name, display_name=name, monthly_sending_target=30_000))
    with engine.begin() as connection:
        set_thresholds(connection, *_threshold(stored(engine)))
    text = exported(engine)
    assert imports(engine, vault, text).summary() == "1 unchanged"
    assert exported(engine) == text


def _threshold(clients: dict[str, Thresholds]) -> tuple[str, dict[str, Decimal | None]]:
    [workspace] = clients
    return workspace, {"max_sending_shortfall": Decimal("12.50")}


@pytest.mark.parametrize("name", ["=1+1", "+49 Freight", "-Dash-", "@home"])
def test_no_name_is_a_formula_in_an_exported_file(engine: Engine, vault: Vault, name: str) -> None:
    imported(engine, vault, record(11, name))
    assert f",'{name},,yes," in exported(engine)


def test_a_name_with_control_characters_is_exported_so_that_it_can_be_imported(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(11, "Harbor"))
    with engine.begin() as connection:
        relabel(connection, {"harbor": "Har\tbor\x1b"}, datetime.now(UTC))
    assert imports(engine, vault, exported(engine)).descriptions() == [
        "harbor: name Har\tbor\x1b → Har bor"
    ]
