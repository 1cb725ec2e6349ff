"""`kpi metrics`: the rows of client_metrics, for people and for programs."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from kpi_pipeline.cli.common import (
    Day,
    Workspaces,
    cell,
    date_of,
    err,
    opened_app,
    out,
    print_whole,
)
from kpi_pipeline.db.metrics import MetricRow, read_metrics
from kpi_pipeline.db.registry.clients import pick_clients
from kpi_pipeline.domain.formatting import counted, whose_day
from kpi_pipeline.domain.outside_names import for_json, for_spreadsheet


class Format(StrEnum):
    """How a command prints rows."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


# The columns that fit on a screen; JSON and CSV hold every one.
_SHOWN = {
    "display_name": "Client",
    "positive_replies_today": "Positive\nreplies\ntoday",
    "positive_replies_mtd": "Positive\nreplies\nthis month",
    "projection_positive_replies_eom": "Projection",
    "monthly_kpi_target": "Target",
    "mtd_leads_progress": "% of\ntarget",
    "positive_replies_last_7_days": "Positive\nreplies\n7 days",
    "positive_replies_last_30_days": "Positive\nreplies\n30 days",
    "positive_replies_last_month": "Positive\nreplies\nlast month",
    "emails_sent_today": "Emails\nsent\ntoday",
    "emails_sent_mtd": "Emails\nsent\nthis month",
    "sending_progress": "% of\nsending\ntarget",
    "bounce_rate_mtd": "Bounced\n%",
}


def run(
    day: Day = None,
    workspace: Workspaces = None,
    form: Annotated[Format, typer.Option("--format", help="How to print the rows.")] = Format.TABLE,
) -> None:
    """Print the rows of client_metrics of one date; without a date: today's.

    Without -w: all active clients, whether they have a row or not.
    """
    with opened_app() as app:
        shown = date_of(day) or app.today()
        title = f"{shown}{whose_day(app.day_zone, app.timezone)}"
        with app.engine.connect() as connection:
            picked = [c.workspace for c in pick_clients(connection, workspace or [])] or None
            rows = read_metrics(connection, shown, picked)
    match form:
        case Format.TABLE:
            _print_table(rows, title)
        case Format.JSON:
            text = json.dumps([_plain(row) for row in rows], indent=2, ensure_ascii=False)
            sys.stdout.write(f"{for_json(text)}\n")
        case Format.CSV:
            writer = csv.writer(sys.stdout, lineterminator="\n")
            writer.writerow(field.name for field in fields(MetricRow))
            writer.writerows(map(for_spreadsheet, _plain(row).values()) for row in rows)
    with_row = sum(row.as_of is not None for row in rows)
    have = "has" if len(rows) == 1 else "have"
    err.print(f"{with_row} of {counted(len(rows), 'client')} {have} a row on {title}.")


def _print_table(rows: Sequence[MetricRow], title: str) -> None:
    table = Table(title=f"client_metrics of {title}", title_justify="left")
    for name, heading in _SHOWN.items():
        table.add_column(heading, justify="left" if name == "display_name" else "right")
    for row in rows:
        table.add_row(*(escape(cell(getattr(row, name))) for name in _SHOWN))
    print_whole(table, out)


def _plain(row: MetricRow) -> dict[str, object]:
    """The row in JSON's types. Percentages become floats, which hold their two decimal places."""
    return {name: _plain_value(value) for name, value in asdict(row).items()}


def _plain_value(value: object) -> object:
    match value:
        case Decimal():
            return float(value)
        case datetime():
            return value.isoformat()
        case _:
            return value
