"""An import changes only what its file names, and what may be a mistake has to be confirmed."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, Engine

from kpi_pipeline.db.registry.api_keys import mark_key, stored_keys
from kpi_pipeline.db.registry.client_import import ImportPlan, plan_import, write_import
from kpi_pipeline.db.registry.clients_csv import parse
from kpi_pipeline.db.registry.vault import Vault, new_secret_key
from kpi_pipeline.db.tables import (
    client_api_keys,
    client_targets,
    clients,
)
from kpi_pipeline_tests.db.stocked import (
    CHICAGO,
    MARCH,
    api_key,
    imported,
    record,
    rows_of,
)

SEEN = datetime(2026, 3, 18, 6, 0, tzinfo=UTC)
FEBRUARY, APRIL = date(2026, 2, 1), date(2026, 4, 1)
HEADER = (
    "instance,bison_workspace_id,name,display_name,active,monthly_kpi_target,"
    "monthly_sending_target,api_key\n"
)
FULL = HEADER + "main,11,Brule Cafe,Brule,no,50,37600,\n"
SHORT = "instance,bison_workspace_id,name"

Stored = Mapping[str, Sequence[Mapping[str, Any]]]


def planned(
    connection: Connection, vault: Vault, text: str, targets_from: date = MARCH
) -> ImportPlan:
    records = parse(text, ["main"], "clients.csv")
    return plan_import(connection, records, targets_from=targets_from, vault=vault)


def imports(engine: Engine, vault: Vault, text: str, targets_from: date = MARCH) -> ImportPlan:
    with engine.begin() as connection:
        plan = planned(connection, vault, text, targets_from)
        write_import(connection, plan, vault=vault, zone=CHICAGO)
    return plan


def risks(engine: Engine, vault: Vault, text: str, targets_from: date = MARCH) -> list[str]:
    with engine.connect() as connection:
        return planned(connection, vault, text, targets_from).risks()


def stored(engine: Engine) -> Stored:
    with engine.connect() as connection:
        tables = (clients, client_targets, client_api_keys)
        return {table.name: rows_of(connection, table) for table in tables}


def client(engine: Engine, workspace: str = "brule-cafe") -> Mapping[str, Any]:
    """A client's row, with its latest targets."""
    tables = stored(engine)
    [row] = [it for it in tables["clients"] if it["workspace"] == workspace]
    targets = [it for it in tables["client_targets"] if it["workspace"] == workspace]
    return {**row, **(targets[-1] if targets else {})}


def test_columns_that_a_file_does_not_have_stay_as_they_are(engine: Engine, vault: Vault) -> None:
    imports(engine, vault, FULL)

    plan = imports(engine, vault, f"{SHORT}\nmain,11,Brulee Cafe\n")

    row = client(engine)
    assert (row["name"], row["display_name"], row["active"]) == ("Brulee Cafe", "Brule", False)
    assert (row["monthly_kpi_target"], row["monthly_sending_target"]) == (50, 37_600)
    assert plan.summary() == "1 name"
    assert plan.descriptions() == ["brule-cafe: name Brule Cafe → Brulee Cafe"]


def test_one_target_is_changed_and_the_other_stays(engine: Engine, vault: Vault) -> None:
    imports(engine, vault, FULL, FEBRUARY)

    imports(engine, vault, f"{SHORT},monthly_kpi_target\nmain,11,Brule Cafe,60\n", MARCH)

    assert [
        (it["holds_from"], it["monthly_kpi_target"], it["monthly_sending_target"])
        for it in stored(engine)["client_targets"]
    ] == [(FEBRUARY, 50, 37_600), (MARCH, 60, 37_600)]


def test_a_blank_cell_removes_a_display_name_and_targets_and_leaves_active_and_key(
    engine: Engine, vault: Vault
) -> None:
    key = api_key(7)
    imports(engine, vault, FULL.replace("37600,", f"37600,{key.get_secret_value()}"))

    imports(engine, vault, HEADER + "main,11,Brule Cafe,,,,,\n")

    row = client(engine)
    assert (row["display_name"], row["active"]) == (None, False)
    assert (row["monthly_kpi_target"], row["monthly_sending_target"]) == (None, None)
    with engine.connect() as connection:
        assert stored_keys(connection, ["brule-cafe"], vault)["brule-cafe"].secret == key


@pytest.mark.parametrize(
    "text", [f"{SHORT}\nmain,11,Brule Cafe\n", HEADER + "main,11,Brule Cafe,,,,,\n"]
)
def test_a_new_client_is_active_and_has_neither_targets_nor_a_key(
    engine: Engine, vault: Vault, text: str
) -> None:
    plan = imports(engine, vault, text)

    tables = stored(engine)
    [row] = tables["clients"]
    assert (row["name"], row["display_name"], row["active"]) == ("Brule Cafe", None, True)
    assert tables["client_targets"] == tables["client_api_keys"] == []
    assert (plan.summary(), plan.descriptions(), plan.risks()) == ("1 new", [], [])


def test_the_same_file_again_changes_nothing_at_all(engine: Engine, vault: Vault) -> None:
    text = FULL.replace("37600,", f"37600,{api_key(7).get_secret_value()}")
    imports(engine, vault, text)
    with engine.begin() as connection:
        key = stored_keys(connection, ["brule-cafe"], vault)["brule-cafe"]
        mark_key(connection, "brule-cafe", key, SEEN)
    before = stored(engine)

    plan = imports(engine, vault, text)

    assert plan.summary() == "1 unchanged"
    assert stored(engine) == before


def test_a_summary_counts_each_kind_of_change(engine: Engine, vault: Vault) -> None:
    key, newer = (api_key(number).get_secret_value() for number in (7, 8))
    rows = [
        "main,1,One,,yes,10,100,",
        "main,2,Two,,yes,10,100,",
        "main,3,Three,,yes,10,100,",
        "main,4,Four,,no,10,100,",
        f"main,5,Five,Fünf,yes,10,100,{key}",
    ]
    assert imports(engine, vault, HEADER + "\n".join(rows)).summary() == "5 new"
    rows = [
        rows[0],
        rows[1].replace("10,100", "20,"),
        rows[2].replace("yes", "no"),
        rows[3].replace("no", "yes"),
        f"main,5,Cinq,,yes,11,1100,{newer}",
        "main,6,Six,,no,,,",
    ]

    plan = imports(engine, vault, HEADER + "\n".join(rows))

    assert plan.summary() == (
        "1 new, 1 unchanged, 1 name, 1 display name, 4 targets, 1 API key, 1 reactivated, "
        "1 deactivated"
    )
    assert plan.descriptions() == [
        "two: monthly_kpi_target 10 → 20, monthly_sending_target 100 → –",
        "three: active yes → no",
        "four: active no → yes",
        "five: name Five → Cinq, display_name Fünf → –, monthly_kpi_target 10 → 11, "
        "monthly_sending_target 100 → 1,100, api_key 7 → 8",
    ]


def test_to_activate_a_client_again_has_to_be_confirmed(engine: Engine, vault: Vault) -> None:
    imports(engine, vault, FULL)
    assert risks(engine, vault, FULL.replace(",no,", ",yes,")) == [
        "line 2, active: brule-cafe is inactive, and would be active again"
    ]
    assert risks(engine, vault, f"{SHORT},active\nmain,11,Brule Cafe,\n") == []


def test_to_deactivate_a_client_or_to_change_a_target_has_not(engine: Engine, vault: Vault) -> None:
    imports(engine, vault, FULL.replace(",no,", ",yes,"))
    assert risks(engine, vault, FULL.replace("50,37600", "0,1")) == []


def test_to_delete_a_target_has_to_be_confirmed_where_one_holds(
    engine: Engine, vault: Vault
) -> None:
    imports(engine, vault, FULL)
    blank = FULL.replace("50,37600", ",")
    assert risks(engine, vault, blank) == [
        "line 2, monthly_kpi_target: the cell is blank, and the target 50 of brule-cafe would be "
        "deleted",
        "line 2, monthly_sending_target: the cell is blank, and the target 37,600 of brule-cafe "
        "would be deleted",
    ]
    assert risks(engine, vault, blank, FEBRUARY) == [], "no target holds in February"


def keys_risks(engine: Engine, vault: Vault, number: int, **changed: Any) -> list[str]:
    records = [record(101, "Harbor", api_key=api_key(number), **changed)]
    with engine.connect() as connection:
        return plan_import(connection, records, targets_from=MARCH, vault=vault).risks()


def test_the_csv_from_before_a_rotation_does_not_put_the_old_key_back_unasked(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, vault, record(101, "Harbor", api_key=api_key(99)))
    imported(engine, vault, record(101, "Harbor", api_key=api_key(100)))
    assert keys_risks(engine, vault, 99, line=3) == [
        "line 3, api_key: key 100 of harbor would be replaced by key 99, which is older"
    ]
    assert keys_risks(engine, vault, 98) != []
    assert keys_risks(engine, vault, 100) == keys_risks(engine, vault, 101) == []


def test_a_key_that_was_stored_before_has_to_be_confirmed_whatever_its_number(
    engine: Engine, vault: Vault
) -> None:
    for number in (20, 15):
        imported(engine, vault, record(101, "Harbor", api_key=api_key(number)))
    assert keys_risks(engine, vault, 20) == [
        "api_key: key 15 of harbor would be replaced by key 20, which was stored before"
    ]
    assert keys_risks(engine, vault, 21) == keys_risks(engine, vault, 18) == []


def test_another_key_of_the_same_number_has_to_be_confirmed(engine: Engine, vault: Vault) -> None:
    mistyped = SecretStr(api_key(7).get_secret_value() + "x")
    imported(engine, vault, record(101, "Harbor", api_key=mistyped))
    assert keys_risks(engine, vault, 7) == [
        "api_key: key 7 of harbor would be replaced by another key of the number 7"
    ]


def test_a_key_that_cannot_be_decrypted_is_replaced_by_itself_or_a_newer_one_unasked(
    engine: Engine, vault: Vault
) -> None:
    imported(engine, Vault(SecretStr(new_secret_key())), record(101, "Harbor", api_key=api_key(7)))
    assert keys_risks(engine, vault, 7) == keys_risks(engine, vault, 8) == []
    assert len(keys_risks(engine, vault, 6)) == 1
    imported(engine, vault, record(101, "Harbor", api_key=api_key(7)))
    with engine.connect() as connection:
        assert stored_keys(connection, ["harbor"], vault)["harbor"].secret == api_key(7)


def test_a_key_number_of_thousands_of_digits_is_compared_as_any_other(
    engine: Engine, vault: Vault
) -> None:
    long = SecretStr(f"{'9' * 5000}|{'Abcdefgh12' * 4}")
    imported(engine, vault, record(101, "Harbor", api_key=long))
    assert len(keys_risks(engine, vault, 7)) == 1
