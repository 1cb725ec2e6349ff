"""What the commands share: options, the opened installation, and how they print."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from kpi_pipeline.app import AppContext, open_app
from kpi_pipeline.domain.outside_names import for_terminal
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.settings import load_settings


class _TextConsole(Console):
    """A console that shows names and errors from outside as text, whatever they hold.

    What rich adds, such as colours, is no part of the strings that it is given.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(for_terminal(text), **options)


# Answers go to standard output, everything else to standard error.
out = _TextConsole(highlight=False)
err = _TextConsole(stderr=True, highlight=False)

Day = Annotated[
    datetime | None,
    typer.Option("--date", formats=["%Y-%m-%d"], metavar="DATE", help="One date, as YYYY-MM-DD."),
]
FromDate = Annotated[
    datetime | None,
    typer.Option(
        "--from", formats=["%Y-%m-%d"], metavar="DATE", help="The first date; unset: all."
    ),
]
Workspaces = Annotated[
    list[str] | None,
    typer.Option(
        "--workspace", "-w", metavar="KEY", help="A client's workspace key; may be repeated."
    ),
]

# Wider than any table of ours: what `Measurement` takes for the available width.
_UNBOUNDED = 10_000


@contextmanager
def opened_app(*, any_day_zone: bool = False) -> Iterator[AppContext]:
    """The configured installation, for a command that works without Dagster.

    For `any_day_zone` see `open_app`.

    Raises:
        KpiError: if a setting is wrong, the KPI database is unreachable or behind the code, or its
            dates are days of another zone.
    """
    with (
        ready_databases(load_settings(), dagster_too=False) as settings,
        open_app(settings, any_day_zone=any_day_zone) as app,
    ):
        yield app


def date_of(moment: datetime | None) -> date | None:
    """The date of an option `--date`, if it is given."""
    return None if moment is None else moment.date()


def exit_unless(good: bool) -> None:
    """End the command with exit code 1 unless all went well."""
    if not good:
        raise typer.Exit(1)


def print_warning(text: str) -> None:
    """Print a warning to standard error."""
    err.print(f"[yellow]Warning:[/yellow] {escape(text)}", soft_wrap=True)


def cell(value: object) -> str:
    """The value as text: NULL is "–", never 0; numbers have separators, instants their zone."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int() | Decimal():
            return f"{value:,}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M %Z}"
        case date():
            return value.isoformat()
        case _:
            return str(value)


def local_time(instant: datetime | None, zone: ZoneInfo) -> str:
    """The instant as text, in that time zone, which is named."""
    return cell(None if instant is None else instant.astimezone(zone))


def print_whole(table: Table, console: Console) -> None:
    """Print a table without cutting any cell.

    Where the console is narrower than the table, its lines wrap: cut to fit, 141,739 would read
    141, and two workspace keys with the same beginning would read the same.
    """
    unbounded = console.options.update(width=_UNBOUNDED)
    needed = Measurement.get(console, unbounded, table).maximum
    if needed > console.width:
        table.width = needed
    console.print(table, crop=False)
