"""`kpi accuracy`: how right the projections of past months were."""

import sys
from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from kpi_pipeline.cli.common import Workspaces, cell, opened_app, out, print_whole
from kpi_pipeline.cli.metrics import Format
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.domain.outside_names import for_json

if TYPE_CHECKING:
    import pandas as pd

_HEADINGS = {
    f"{counts}_{name}": heading
    for counts, label in (("positive_replies", "Replies"), ("emails", "Emails"))
    for name, heading in (
        ("projected_10th", f"{label}\n10th"),
        ("error_10th", "error\n%"),
        ("projected_20th", f"{label}\n20th"),
        ("error_20th", "error\n%"),
        ("actual", f"{label}\nmonth"),
    )
}


def run(
    months: Annotated[int, typer.Option(min=1, help="How many past months.")] = 3,
    workspace: Workspaces = None,
    form: Annotated[Format, typer.Option("--format", help="How to print the rows.")] = Format.TABLE,
) -> None:
    """Compare the projections of past months with what the months brought.

    For each client and for all: the projections of the 10th and the 20th, their errors, and the
    sums on the month's last day. An error above 0: the projection was too high.
    """
    # Imported late: pandas takes a second, and no other command but `export` needs it.
    from kpi_pipeline.frames import read_accuracy, write_csv

    with opened_app() as app:
        accuracy = read_accuracy(
            app.engine, today=app.today(), months=months, workspaces=workspace or None
        )
    accuracy = accuracy.assign(month=accuracy["month"].dt.strftime("%Y-%m"))
    match form:
        case Format.TABLE:
            for month, rows in accuracy.groupby("month"):
                _print_table(f"Projections of {month}", rows)
        case Format.JSON:
            text = accuracy.to_json(orient="records", indent=2, force_ascii=False)
            sys.stdout.write(f"{for_json(text)}\n")
        case Format.CSV:
            write_csv(accuracy, sys.stdout)


def _print_table(title: str, rows: "pd.DataFrame") -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("Client")
    for heading in _HEADINGS.values():
        table.add_column(heading, justify="right")
    *clients, overall = rows.astype(object).where(rows.notna(), None).to_dict("records")
    for row in clients:
        table.add_row(escape(row["display_name"]), *_cells(row))
    table.add_section()
    table.add_row(f"{overall['clients']} of {counted(len(clients), 'client')}", *_cells(overall))
    print_whole(table, out)


def _cells(row: Mapping[Hashable, Any]) -> Iterator[str]:
    for name in _HEADINGS:
        value = row[name]
        yield f"{value:+,.1f}" if isinstance(value, float) else cell(value)
