"""Tables for people: how a value stands in one, and how one is printed."""

from datetime import date, datetime
from decimal import Decimal

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

# Wider than any table of ours: what `Measurement` takes for the room there is.
_UNBOUNDED = 10_000


def cell(value: object) -> str:
    """The value as text: NULL is "–", never 0; numbers carry separators of thousands."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int() | Decimal():
            return f"{value:,}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M}"
        case date():
            return value.isoformat()
        case _:
            return str(value)


def print_whole(table: Table, console: Console) -> None:
    """Print a table with every cell whole.

    Where the console is narrower than the table, its lines run on: cut to fit, 141,739 would read
    141, and two keys that begin alike would read the same.
    """
    room = console.options.update(width=_UNBOUNDED)
    needed = Measurement.get(console, room, table).maximum
    if needed > console.width:
        table.width = needed
    console.print(table, crop=False)
