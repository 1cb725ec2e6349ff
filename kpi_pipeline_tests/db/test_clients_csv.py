from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.clients import ClientRecord
from kpi_pipeline.db.clients_csv import COLUMNS, TEMPLATE, parse, read_file
from kpi_pipeline.db.tables import clients
from kpi_pipeline.db.vault import Vault
from kpi_pipeline.errors import KpiError
from kpi_pipeline_tests.db.stocked import api_key, imported, record, rows_of

HEADER = ",".join(COLUMNS) + "\n"
SHORT = "instance,bison_workspace_id,name\n"


def parsed(text: str) -> list[ClientRecord]:
    return parse(text, ["main", "second"], "clients.csv")


def test_each_column_becomes_its_own_field() -> None:
    key = api_key(7)
    rows = f"second,101,Harbor Analytics,Harbor,no,60,30000,{key.get_secret_value()}\n"
    assert parsed(HEADER + rows) == [
        ClientRecord(
            instance="second",
            bison_workspace_id=101,
            name="Harbor Analytics",
            display_name="Harbor",
            active=False,
            monthly_kpi_target=60,
            monthly_sending_target=30_000,
            api_key=key,
        )
    ]


def test_blank_cells_mean_active_without_targets_without_a_key() -> None:
    expected = record(101, "Harbor Analytics", monthly_kpi_target=None)
    assert parsed(HEADER + "main,101,Harbor Analytics,,,,,\n") == [expected]


def test_optional_columns_may_be_absent() -> None:
    expected = record(101, "Harbor Analytics", monthly_kpi_target=None)
    assert parsed(SHORT + "main,101,Harbor Analytics\n") == [expected]


def test_columns_may_stand_in_any_order() -> None:
    [client] = parsed("name,monthly_kpi_target,instance,bison_workspace_id\nHarbor,9,main,101\n")
    assert (client.name, client.monthly_kpi_target, client.bison_workspace_id) == ("Harbor", 9, 101)


@pytest.mark.parametrize(
    ("cell", "active"),
    [("yes", True), ("TRUE", True), ("1", True), (" No ", False), ("false", False), ("0", False)],
)
def test_active_is_read_as_people_write_it(cell: str, active: bool) -> None:
    [client] = parsed(f"{SHORT.strip()},active\nmain,101,Harbor,{cell}\n")
    assert client.active is active


def test_cells_and_column_names_are_trimmed() -> None:
    [client] = parsed(" instance , bison_workspace_id,name \n main , 101 ,  Harbor Analytics \n")
    assert (client.instance, client.bison_workspace_id) == ("main", 101)
    assert client.name == "Harbor Analytics"


def test_a_quoted_comma_stays_in_the_name() -> None:
    [client] = parsed(SHORT + 'main,101,"Harbor, Quay & ""Sons"""\n')
    assert client.name == 'Harbor, Quay & "Sons"'


def test_blank_lines_are_passed_over() -> None:
    found = parsed(SHORT + "main,101,Harbor\n\nmain,102,Quay\n\n")
    assert [client.name for client in found] == ["Harbor", "Quay"]


def test_the_same_id_in_two_instances_is_no_duplicate() -> None:
    found = parsed(SHORT + "main,101,Harbor\nsecond,101,Quay\n")
    assert [(it.instance, it.bison_workspace_id) for it in found] == [
        ("main", 101),
        ("second", 101),
    ]


def test_the_template_can_be_imported_as_it_is() -> None:
    assert [client.name for client in parsed(TEMPLATE)] == [
        "Harbor Analytics",
        "Harbor Analytics Europe",
    ]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\N{BYTE ORDER MARK}"])
def test_a_file_as_excel_saves_it_is_read(tmp_path: Path, mark: str, newline: str) -> None:
    file = tmp_path / "clients.csv"
    text = mark + SHORT + "main,101,Café Zoë\nmain,102,Quay\n"
    file.write_bytes(text.replace("\n", newline).encode())
    assert [client.name for client in read_file(file, ["main"])] == ["Café Zoë", "Quay"]


def _missing(file: Path) -> None:
    file.unlink()


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _latin_1(file: Path) -> None:
    file.write_bytes((SHORT + "main,101,Café\n").encode("latin-1"))


def _utf_16(file: Path) -> None:
    file.write_bytes((SHORT + "main,101,Harbor\n").encode("utf-16"))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_missing, "can't be read: No such file or directory. Check the name."),
        (_folder, "can't be read: Is a directory. Check the name."),
        (_latin_1, "is not UTF-8 text. Save it as CSV in UTF-8, and import it again."),
        (_utf_16, "is not UTF-8 text. Save it as CSV in UTF-8, and import it again."),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    file = tmp_path / "clients.csv"
    file.touch()
    spoil(file)
    with pytest.raises(KpiError) as refusal:
        read_file(file, ["main"])
    assert str(refusal.value) == f"{file} {sentence}"


def test_a_half_wrong_file_writes_nothing(engine: Engine, vault: Vault, tmp_path: Path) -> None:
    imported(engine, vault, record(101, "Harbor"))
    with engine.connect() as connection:
        before = rows_of(connection, clients)
    file = tmp_path / "clients.csv"
    file.write_text(SHORT + "main,101,Renamed\nmain,102,Quay\nmain,none,Pier\n")
    with pytest.raises(KpiError, match="line 4, bison_workspace_id"):
        imported(engine, vault, *read_file(file, ["main"]))
    with engine.connect() as connection:
        assert rows_of(connection, clients) == before


def test_a_file_that_was_mended_is_written_whole(
    engine: Engine, vault: Vault, tmp_path: Path
) -> None:
    file = tmp_path / "clients.csv"
    file.write_text(SHORT + "main,101,Harbor\nmain,102,Quay\n")
    assert imported(engine, vault, *read_file(file, ["main"])) == ["harbor", "quay"]
    with engine.connect() as connection:
        assert [row["name"] for row in rows_of(connection, clients)] == ["Harbor", "Quay"]
