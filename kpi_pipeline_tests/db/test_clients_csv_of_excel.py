"""The CSV of clients as Excel writes it: other separators, encodings, blanks and numbers."""

from pathlib import Path

import pytest

from kpi_pipeline.db.registry.client_import import KEEP, ClientRecord
from kpi_pipeline.db.registry.clients_csv import parse, read_file
from kpi_pipeline.errors import KpiError

HEADER = (
    "instance,bison_workspace_id,name,display_name,active,monthly_kpi_target,"
    "monthly_sending_target,api_key"
)
ROWS = "main,11,Brûlé Café,,yes,50,37600,\nmain,13,O’Farrow,,yes,50,48300,\n"
CLIENTS = [
    ClientRecord("main", 11, "Brûlé Café", None, True, 50, 37_600),
    ClientRecord("main", 13, "O’Farrow", None, True, 50, 48_300),
]
BOM = "\N{BYTE ORDER MARK}"
SHORT = "instance,bison_workspace_id,name"


def parsed(text: str) -> list[ClientRecord]:
    return parse(text, ["main"], "clients.csv")


def message(text: str) -> str:
    with pytest.raises(KpiError) as error:
        parsed(text)
    return str(error.value)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_commas_semicolons_and_tabs_separate_columns(separator: str, newline: str) -> None:
    text = f"{HEADER}\n{ROWS}".replace(",", separator).replace("\n", newline)
    assert parsed(text) == CLIENTS


@pytest.mark.parametrize("line", ["sep=;", "SEP=;", '"sep=;"', "sep=; "])
def test_a_line_that_names_the_separator_is_read_and_counted(line: str) -> None:
    text = f"{line}\r\n{HEADER}\r\n{ROWS}".replace(",", ";")
    assert parsed(text) == CLIENTS
    assert [client.line for client in parsed(text)] == [3, 4]
    wrong = text.replace("main;13", "main;none")
    assert "line 4, bison_workspace_id: 'none' is no whole number" in message(wrong)


def test_a_line_that_names_a_tab_as_separator_is_read() -> None:
    assert parsed("sep=\t\n" + f"{HEADER}\n{ROWS}".replace(",", "\t")) == CLIENTS


def test_a_separator_that_cannot_separate_columns_is_named() -> None:
    assert message(f"sep=|\n{HEADER}\n{ROWS}") == (
        "clients.csv, line 1: '|' can't separate columns. Use a comma, a semicolon or a tab."
    )


def test_a_comma_in_a_cell_makes_no_comma_file() -> None:
    [client] = parsed(
        f"{SHORT};display_name\nmain;11;Mills, Sons; A, B, C\n".replace(",name", ";name").replace(
            "instance,", "instance;"
        )
    )
    assert (client.name, client.display_name) == ("Mills, Sons", "A, B, C")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_unicode_files_are_read_with_and_without_a_byte_order_mark(
    tmp_path: Path, encoding: str, separator: str
) -> None:
    text = f"{HEADER}\n{ROWS}".replace(",", separator).replace("\n", "\r\n")
    file = tmp_path / "clients.csv"
    file.write_bytes((BOM * (encoding == "utf-16-be") + text).encode(encoding))
    assert read_file(file, ["main"]) == CLIENTS


@pytest.mark.parametrize("header", [HEADER.title(), HEADER.upper(), HEADER.replace("_id", "_ID")])
def test_column_names_are_read_in_any_case(header: str) -> None:
    assert parsed(f"{header}\n{ROWS}") == CLIENTS


def test_blank_rows_are_passed_over_wherever_they_stand() -> None:
    first, second, _ = ROWS.split("\n")
    text = f",,,,,,,\n\n{HEADER}\n,,,,,,,\n{first}\n , ,,,,,,\n{second}\n,,,\n"
    assert parsed(text) == CLIENTS
    assert [client.line for client in parsed(text)] == [5, 7]


@pytest.mark.parametrize("surplus", [",", ",,", ", , "])
def test_blank_columns_at_the_end_are_passed_over(surplus: str) -> None:
    rows = ROWS.replace("\n", f"{surplus}\n")
    assert parsed(f"{HEADER}{surplus}\n{rows}") == CLIENTS
    assert parsed(f"{HEADER}\n{rows}") == CLIENTS


def test_something_in_a_column_without_a_name_is_a_problem() -> None:
    said = message(f"{HEADER},,\n{ROWS}main,14,Quay,,yes,,,,note\n")
    assert "  line 4: it does not have 8 columns" in said


def test_a_row_may_end_before_cells_in_which_a_blank_changes_nothing() -> None:
    rows = ROWS.replace(",\n", "\n")
    assert parsed(f"{HEADER}\n{rows}") == CLIENTS
    [client] = parsed(f"{SHORT},active\nmain,11,Brûlé Café\n")
    assert (client.active, client.display_name) == (None, KEEP)


@pytest.mark.parametrize(
    "cell",
    [
        *("1500", "1500.0", "1500.00", "1,500", "1,500.0", "1 500", "1 500.0", "001500"),
        *(f"1{space}500" for space in "\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}"),
        "\N{NO-BREAK SPACE}1500\N{NO-BREAK SPACE}",
    ],
)
def test_whole_numbers_are_read_as_excel_formats_them(cell: str) -> None:
    text = (
        f'{SHORT},monthly_kpi_target,monthly_sending_target\nmain,"{cell}",Quay,"{cell}","{cell}"\n'
    )
    [client] = parsed(text)
    assert client == ClientRecord("main", 1500, "Quay", KEEP, None, 1500, 1500)


def test_a_number_may_have_several_groups_of_thousands() -> None:
    cells = ['"1,234,567"', "12 345 678", "123 456.0"]
    found = parsed(
        f"{SHORT},monthly_sending_target\n"
        + "".join(f"main,{number},Quay,{cell}\n" for number, cell in enumerate(cells))
    )
    assert [it.monthly_sending_target for it in found] == [1_234_567, 12_345_678, 123_456]


@pytest.mark.parametrize(
    "cell",
    [
        *("1.500", "1.5", "1,5", "1,50", "1,5000", "15,00", "1,500,00", "1, 500", "0,500"),
        *("1,234 567", ",500", "1500,", "1500.", "1500.000", "-1,500", "1  500", "1'500"),
        *("2,147,483,648", "1e3", "1500.5"),
    ],
)
def test_what_can_be_read_in_two_ways_is_no_number(cell: str) -> None:
    said = message(f'{SHORT},monthly_kpi_target\nmain,11,Quay,"{cell}"\n')
    assert f"line 2, monthly_kpi_target: {cell!r} is no whole number" in said
