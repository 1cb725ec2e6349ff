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


GOOD = "main,100,Harbor,,yes,60,,\n"


def message(text: str) -> str:
    with pytest.raises(KpiError) as error:
        parse(text, ["main", "second"], "clients.csv")
    return str(error.value)


def problems(text: str) -> list[str]:
    first, *listed = message(text).split("\n")
    assert first == "clients.csv was not imported. Correct these and import it again:"
    return [line.strip() for line in listed]


NO_COUNT = "is no whole number from 0 to 2147483647"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (",101,Quay,,,,,", "instance: it is empty"),
        ("third,101,Quay,,,,,", "instance: 'third' is not configured; known: main, second"),
        ("main,,Quay,,,,,", "bison_workspace_id: it is empty"),
        ("main,1e3,Quay,,,,,", f"bison_workspace_id: '1e3' {NO_COUNT}"),
        ("main,-1,Quay,,,,,", f"bison_workspace_id: '-1' {NO_COUNT}"),
        ("main,2147483648,Quay,,,,,", f"bison_workspace_id: '2147483648' {NO_COUNT}"),
        ("main,٣,Quay,,,,,", f"bison_workspace_id: '٣' {NO_COUNT}"),
        ("main,101,  ,,,,,", "name: it is empty"),
        ("main,101,Qu\tay,,,,,", "name: it holds a control character"),
        ("main,101,Quay,Qu\x00ay,,,,", "display_name: it holds a control character"),
        ("main,101,Quay,,perhaps,,,", "active: 'perhaps' is neither yes nor no"),
        ("main,101,Quay,,,many,,", f"monthly_kpi_target: 'many' {NO_COUNT}"),
        ("main,101,Quay,,,,2.5,", f"monthly_sending_target: '2.5' {NO_COUNT}"),
        (
            "main,101,Quay,,,,,nonsense",
            "api_key: it is not of the form NUMBER|LETTERS-AND-DIGITS",
        ),
    ],
)
def test_a_problem_is_named_by_line_and_column(row: str, problem: str) -> None:
    assert problems(f"{HEADER}{GOOD}{row}\n") == [f"line 3, {problem}"]


@pytest.mark.parametrize(
    "row", ["main,101,Quay", "main,101,Quay,,,,,,x", "main", "main,101,Quay,,yes,60"]
)
def test_a_row_of_another_width_is_named(row: str) -> None:
    assert problems(f"{HEADER}{GOOD}{row}\n") == ["line 3: it does not have 8 columns"]


def test_a_number_of_thousands_of_digits_is_a_problem_like_any_other() -> None:
    [problem] = problems(f"{HEADER}main,{'9' * 5000},Quay,,,,,\n")
    assert problem.startswith("line 2, bison_workspace_id: '999")


def test_all_problems_of_a_file_are_reported_together() -> None:
    rows = "third,x,Quay,,,,,\n" + GOOD + "main,102,,,,,,\n"
    assert [problem.partition(":")[0] for problem in problems(HEADER + rows)] == [
        "line 2, instance",
        "line 2, bison_workspace_id",
        "line 4, name",
    ]


def test_a_long_list_of_problems_is_cut_and_the_rest_counted() -> None:
    listed = problems(HEADER + "main,x,Quay,,,,,\n" * 23)
    assert len(listed) == 21
    assert listed[19].startswith("line 21,")
    assert listed[20] == "and 3 more"


def test_exactly_twenty_problems_are_all_shown() -> None:
    assert len(problems(HEADER + "main,x,Quay,,,,,\n" * 20)) == 20


def test_a_duplicate_names_both_lines() -> None:
    rows = GOOD + "main,101,Quay,,,,,\n" + "main,100,Harbor again,,,,,\n"
    assert problems(HEADER + rows) == ["line 4, bison_workspace_id: line 2 has 100 of main already"]


def test_cells_over_several_lines_and_blank_lines_shift_no_line_number() -> None:
    long_cell = 'main,101,Quay,"Quay\nand\nPier",,,,\n'
    rows = long_cell + "\n" + GOOD + "main,x,Sloop,,,,,\n"
    assert [problem.partition(":")[0] for problem in problems(HEADER + rows)] == [
        "line 2, display_name",
        "line 7, bison_workspace_id",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name\nHarbor\n", "line 1: the header lacks 'instance', 'bison_workspace_id'."),
        (
            "instance,bison_workspace_id,name,Target\n",
            "line 1: the header has unknown 'Target'.",
        ),
        (
            "instance,bison_workspace_id,name,Name,active,active\n",
            "line 1: the header has twice 'active', 'name'.",
        ),
        (
            "instance,name,goal\n",
            "line 1: the header lacks 'bison_workspace_id'; has unknown 'goal'.",
        ),
    ],
)
def test_a_wrong_header_says_what_is_wrong(text: str, sentence: str) -> None:
    assert message(text) == f"clients.csv, {sentence} Compare it with `kpi clients template`."


@pytest.mark.parametrize("text", ["", "\n", "main|101|Harbor\n", "main;101;Harbor\n"])
def test_a_text_without_a_header_says_so(text: str) -> None:
    assert message(text) == (
        "clients.csv, line 1: there is no header of column names, separated by commas, semicolons "
        "or tabs. Compare it with `kpi clients template`."
    )


def test_a_header_alone_holds_no_clients() -> None:
    assert message(HEADER) == (
        "clients.csv holds no clients. Compare it with `kpi clients template`."
    )


def test_a_quote_that_is_never_closed_is_named_by_line() -> None:
    said = message(f'{HEADER}{GOOD}main,101,"Quay,,,,,\n')
    assert said.startswith("clients.csv is not well-formed CSV: line 3: ")


SECRET = api_key(7).get_secret_value()


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}main,101,Quay,,,,,{SECRET}!\n",
        f"{HEADER}main,101,Quay,,,,,{SECRET.partition('|')[2]}\n",
        f"{HEADER}main,101,Quay,,,,{SECRET},\n",
        f"{HEADER}main,{SECRET},Quay,,,,,\n",
        f"{HEADER}main,101,{SECRET},,,,,\n",
        f"{HEADER}main,101,Quay,Quay {SECRET},,,,\n",
        f"{HEADER}main,101,Quay,,{SECRET},,,\n",
        f"{HEADER}main,101,Quay,,{SECRET.partition('|')[2]},,,\n",
        f"{HEADER}main,101,Quay,,,{SECRET.replace('|', ' ')},,\n",
        f"{HEADER.strip()},{SECRET}\nmain,101,Quay,,,,,\n",
        f"sep=;\nmain;101;Quay;;;;;{SECRET}\n",
        f"{HEADER}{SECRET},101,Quay,,,,,\n",
        f"{HEADER}main,101,Quay,,,,,,{SECRET}\n",
        f"main,101,Quay,,yes,60,,{SECRET}\n",
        f'{HEADER}main,101,Quay,,,,,"{SECRET}\n',
        f"{HEADER}main,101,Quay,,,,,{SECRET}\nmain,101,Quay,,,,,{SECRET}\n",
    ],
)
def test_no_message_ever_shows_an_api_key(text: str) -> None:
    said = message(text)
    assert said.startswith("clients.csv")
    assert "Abcdefgh12" not in said
