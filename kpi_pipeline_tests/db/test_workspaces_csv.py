"""The workspaces that Email Bison lists, added to the file that people fill in."""

import codecs
import stat
from pathlib import Path

import pytest

from kpi_pipeline.db.registry.clients_csv import COLUMNS, read_file
from kpi_pipeline.db.registry.workspaces_csv import FoundWorkspace, add_workspaces
from kpi_pipeline.errors import KpiError

HERON = FoundWorkspace("main", 101, "Heron Tide Freight")
LARK = FoundWorkspace("main", 102, "Lark, Mill & Sons")
KEY = f"17|{'abcDEFghi123' * 4}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "clients.csv"


def _imported(file: Path) -> list[tuple[int, str, int | None]]:
    return [
        (it.bison_workspace_id, it.name, it.monthly_kpi_target)  # type: ignore[misc]
        for it in read_file(file, ["main"])
    ]


def test_a_new_file_has_all_workspaces_and_is_its_owners_alone(file: Path) -> None:
    assert add_workspaces(file, [HERON, LARK]) == f"{file} has 2 workspaces to fill in."
    assert file.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert _imported(file) == [(101, HERON.name, None), (102, LARK.name, None)]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_name_that_a_spreadsheet_would_compute_is_read_back_as_it_is(file: Path) -> None:
    add_workspaces(file, [FoundWorkspace("main", 103, "=1+1\tLtd")])
    assert file.read_text().splitlines()[1].startswith("main,103,'=1+1 Ltd,")
    assert _imported(file) == [(103, "=1+1 Ltd", None)]


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [("utf-8", b""), ("utf-8", codecs.BOM_UTF8), ("utf-16-le", codecs.BOM_UTF16_LE)],
)
@pytest.mark.parametrize("end", ["", "\r\n"])
def test_what_people_filled_in_stays_and_new_workspaces_come_last(
    file: Path, encoding: str, mark: bytes, end: str
) -> None:
    filled_in = (
        "Instance;Name;bison_workspace_id;monthly_kpi_target;api_key\r\n"
        f"main;Heron;101;60;{KEY}{end}"
    )
    before = mark + filled_in.encode(encoding)
    file.write_bytes(before)
    said = add_workspaces(file, [HERON, LARK])
    assert said == f"{file} has 1 new workspace to fill in, at its end."
    assert file.read_bytes().startswith(before)
    assert _imported(file) == [(101, "Heron", 60), (102, LARK.name, None)]


def test_a_second_run_and_clients_of_the_database_add_nothing(file: Path) -> None:
    add_workspaces(file, [HERON])
    before = file.read_bytes()
    said = add_workspaces(file, [HERON, LARK], [("main", 102)])
    assert said.startswith(f"{file} stays as it is")
    assert file.read_bytes() == before
    file.unlink()
    assert "every workspace is a client already" in add_workspaces(file, [LARK], [("main", 102)])
    assert not file.exists()


def test_the_same_id_on_another_instance_is_another_workspace(file: Path) -> None:
    add_workspaces(file, [HERON])
    assert "1 new workspace" in add_workspaces(file, [FoundWorkspace("eu", 101, "Heron EU")])


@pytest.mark.parametrize("text", ["a shopping list\n", "", "name,api_key\nHeron,17|abc\n"])
def test_a_file_of_something_else_is_refused_and_stays(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(KpiError, match="is no list of clients"):
        add_workspaces(file, [HERON])
    assert file.read_text() == text


def test_a_row_that_is_cut_off_hinders_nothing(file: Path) -> None:
    file.write_text(f"name,instance,bison_workspace_id\nHeron\n{HERON.name},main,101\n")
    assert "1 new workspace" in add_workspaces(file, [HERON, LARK])
