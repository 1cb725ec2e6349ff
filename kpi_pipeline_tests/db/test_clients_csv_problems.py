"""What is wrong with a file of clients is said by line and column, and no key is shown."""

import pytest

from kpi_pipeline.db.registry.clients_csv import parse
from kpi_pipeline.errors import KpiError
from kpi_pipeline_tests.db.stocked import api_key
from kpi_pipeline_tests.db.test_clients_csv import HEADER

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
