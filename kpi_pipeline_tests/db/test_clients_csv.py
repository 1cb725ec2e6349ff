"""What the cells of a file of clients become, and what an import of it writes."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.registry.client_import import KEEP, ClientRecord
from kpi_pipeline.db.registry.clients_csv import COLUMNS, TEMPLATE, parse, read_file
from kpi_pipeline.db.registry.thresholds import THRESHOLDS
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.tables import clients
from kpi_pipeline.errors import KpiError
from kpi_pipeline_tests.db.stocked import api_key, imported, record, rows_of

# Without the thresholds, as files of earlier versions.
HEADER = ",".join(it for it in COLUMNS if it not in THRESHOLDS) + "\n"
SHORT = "instance,bison_workspace_id,name\n"


def parsed(text: str) -> list[ClientRecord]:
    return parse(text, ["main", "second"], "clients.csv")


def test_each_column_becomes_its_own_field() -> None:
    key = api_key(7)
    rows = f"second,101,Harbor Analytics,Harbor,no,60,30000,25,0.2,{key.get_secret_value()}\n"
    assert parsed(",".join(COLUMNS) + "\n" + rows) == [
        ClientRecord(
            instance="second",
            bison_workspace_id=101,
            name="Harbor Analytics",
            display_name="Harbor",
            active=False,
            monthly_kpi_target=60,
            monthly_sending_target=30_000,
            max_sending_shortfall=Decimal(25),
            min_reply_rate=Decimal("0.2"),
            api_key=key,
        )
    ]


def test_blank_cells_remove_a_label_and_targets_and_keep_the_rest() -> None:
    expected = record(101, "Harbor Analytics", active=None, monthly_kpi_target=None)
    assert parsed(HEADER + "main,101,Harbor Analytics,,,,,\n") == [expected]


def test_what_absent_columns_would_say_stays_as_it_is() -> None:
    [client] = parsed(SHORT + "main,101,Harbor Analytics\n")
    assert client == ClientRecord("main", 101, "Harbor Analytics")
    assert (client.display_name, client.active, client.api_key) == (KEEP, None, None)
    assert (client.monthly_kpi_target, client.monthly_sending_target) == (KEEP, KEEP)
    assert (client.max_sending_shortfall, client.min_reply_rate) == (KEEP, KEEP)


@pytest.mark.parametrize(
    ("cell", "percent"),
    [
        ("15", "15"),
        ("0.3", "0.3"),
        ('"0,30"', "0.3"),
        ("15 %", "15"),
        ("2.25%", "2.25"),
        ("0", "0"),
    ],
)
def test_a_percentage_is_read_as_people_and_excel_write_it(cell: str, percent: str) -> None:
    [client] = parsed(f"{SHORT.strip()},min_reply_rate\nmain,101,Harbor,{cell}\n")
    assert client.min_reply_rate == Decimal(percent)


@pytest.mark.parametrize("cell", ["101", "-1", "0.123", "1e1", ".3", "few", "٣"])
def test_what_is_no_percentage_is_named_by_line_and_column(cell: str) -> None:
    with pytest.raises(KpiError) as error:
        parsed(f"{SHORT.strip()},max_sending_shortfall\nmain,101,Harbor,{cell}\n")
    problem = "is no percentage from 0 to 100 with at most two decimal places"
    assert f"line 2, max_sending_shortfall: {cell!r} {problem}" in str(error.value)


def test_a_blank_cell_of_a_threshold_lets_the_default_hold() -> None:
    header = f"{SHORT.strip()},max_sending_shortfall,min_reply_rate"
    [client] = parsed(f"{header}\nmain,101,Harbor,,0.5\n")
    assert (client.max_sending_shortfall, client.min_reply_rate) == (None, Decimal("0.5"))


def test_a_client_knows_the_line_of_its_row() -> None:
    found = parsed(SHORT + "\nmain,101,Harbor\n\nmain,102,Quay\n")
    assert [client.line for client in found] == [3, 5]


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


def _missing(file: Path) -> None:
    file.unlink()


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _latin_1(file: Path) -> None:
    file.write_bytes((SHORT + "main,101,Café\n").encode("latin-1"))


def _half_utf_16(file: Path) -> None:
    file.write_bytes((SHORT + "main,101,Harbor\n").encode("utf-16")[:-1])


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_missing, "can't be read: No such file or directory. Check the name."),
        (_folder, "can't be read: Is a directory. Check the name."),
        (_latin_1, "is not UTF-8 text. Save it as CSV in UTF-8, and import it again."),
        (_half_utf_16, "is not UTF-16 text. Save it as CSV in UTF-8, and import it again."),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    file = tmp_path / "clients.csv"
    file.touch()
    spoil(file)
    with pytest.raises(KpiError) as error:
        read_file(file, ["main"])
    assert str(error.value) == f"{file} {sentence}"


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


def test_a_file_that_was_corrected_is_written_whole(
    engine: Engine, vault: Vault, tmp_path: Path
) -> None:
    file = tmp_path / "clients.csv"
    file.write_text(SHORT + "main,101,Harbor\nmain,102,Quay\n")
    assert imported(engine, vault, *read_file(file, ["main"])) == ["harbor", "quay"]
    with engine.connect() as connection:
        assert [row["name"] for row in rows_of(connection, clients)] == ["Harbor", "Quay"]
