import io
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from rich.console import Console
from rich.table import Table

from kpi_pipeline.cli.common import cell, err, out, print_whole


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (0, "0"),
        (Decimal("0.00"), "0.00"),
        (1234567, "1,234,567"),
        (-12, "-12"),
        (Decimal("-17.65"), "-17.65"),
        (Decimal("12345.60"), "12,345.60"),
        (True, "yes"),
        (False, "no"),
        (date(2026, 3, 8), "2026-03-08"),
        (datetime(2026, 3, 8, 5, 7, 59, tzinfo=UTC), "2026-03-08 05:07 UTC"),
        ("Brûlé Café", "Brûlé Café"),
        ("", ""),
    ],
)
def test_null_is_a_dash_and_never_a_zero(value: object, shown: str) -> None:
    assert cell(value) == shown


def test_a_name_that_holds_control_characters_moves_no_cursor_and_hides_no_word(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "Acme \x1b[2J\x9b1A\u202eemca"
    table = Table("Client")
    table.add_row(name)
    print_whole(table, out)
    err.print(f"[red]Error:[/red] {name}", soft_wrap=True)
    printed = capsys.readouterr()
    for screen in printed:
        assert "Acme [U+001B][2J[U+009B]1A[U+202E]emca" in screen
    assert not {"\x1b", "\x9b", "\u202e"} & set(printed.out + printed.err)


def _printed(table: Table, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_whole(table, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _table() -> Table:
    table = Table("Client", "Emails", "Replies")
    table.add_row("Heron Tide Freight", "141,739", "1,268")
    return table


def test_no_cell_is_cut_short_on_a_narrow_screen() -> None:
    narrow = _printed(_table(), 20)
    assert "│ Heron Tide Freight │ 141,739 │ 1,268   │" in narrow
    assert "…" not in narrow


def test_a_wide_screen_is_not_filled() -> None:
    lines = _printed(_table(), 500).splitlines()
    assert {len(line) for line in lines} == {42}
