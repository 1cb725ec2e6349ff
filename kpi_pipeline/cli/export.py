"""`kpi export`: the rows of client_metrics as a file for spreadsheets, notebooks and warehouses."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from shutil import copymode
from typing import TYPE_CHECKING, Annotated, TextIO
from uuid import uuid4

import typer

from kpi_pipeline.cli.common import FromDate, Workspaces, date_of, err, opened_app
from kpi_pipeline.domain.formatting import counted, period
from kpi_pipeline.errors import KpiError

if TYPE_CHECKING:
    import pandas as pd


class Format(StrEnum):
    """The format of the file."""

    CSV = "csv"
    PARQUET = "parquet"
    XLSX = "xlsx"


# The packages with which pandas writes these; the extra `export` installs them.
_WRITERS = {Format.PARQUET: "pyarrow", Format.XLSX: "openpyxl"}
_SHEET_ROWS = 1_048_575
# XML, and so a workbook, has no way to write these.
_NOT_IN_XML = r"[\x00-\x08\x0b\x0c\x0e-\x1f]"


def run(
    first: FromDate = None,
    last: Annotated[
        datetime | None,
        typer.Option(
            "--to", formats=["%Y-%m-%d"], metavar="DATE", help="The last date; unset: all."
        ),
    ] = None,
    workspace: Workspaces = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file to write; unset: CSV to standard output."),
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="Unset: what the file's name ends with, or else csv."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE where it exists.")] = False,
) -> None:
    """Write the rows of client_metrics to a file: CSV, Parquet or Excel.

    Without -w: the rows of all clients, inactive ones included. Unknown numbers are empty fields.
    """
    form = form or _format_of(out)
    export(date_of(first), date_of(last), workspace or None, out, form, force=force)


def export(
    first: date | None,
    last: date | None,
    workspaces: list[str] | None,
    out: Path | None,
    form: Format,
    *,
    force: bool,
) -> None:
    """Write the rows; the file appears whole or not at all.

    Raises:
        KpiError: for dates in the wrong order, an unknown client, a missing writer, or a file that
            exists or can't be written.
    """
    if first is not None and last is not None and last < first:
        raise KpiError(f"--from {first} is after --to {last}.")
    if form in _WRITERS and find_spec(_WRITERS[form]) is None:
        raise KpiError(
            f"Writing {form} needs {_WRITERS[form]}: pip install 'kpi-pipeline[export]'."
        )
    if out is None and form is not Format.CSV:
        raise KpiError(f"Name the file for the {form} with --out, as in --out kpis.{form}.")
    if out is not None:
        _check_target(out, force)
    frame = _read(first, last, workspaces)
    if out is None:
        _write_csv(frame, sys.stdout)
    else:
        with _whole_file(out) as unfinished:
            _write(frame, unfinished, form)
    days = frame["metric_date"]
    dates = f", {period(days.min(), days.max())}" if len(frame) else ""
    clients = counted(frame["workspace"].nunique(), "client")
    where = "" if out is None else f" written to {out}"
    err.print(f"{counted(len(frame), 'row')} of {clients}{dates}{where}.", soft_wrap=True)


def _format_of(out: Path | None) -> Format:
    ending = "" if out is None else out.suffix.lower().removeprefix(".")
    return Format(ending) if ending in set(Format) else Format.CSV


def _read(first: date | None, last: date | None, workspaces: list[str] | None) -> "pd.DataFrame":
    # Imported late: pandas takes a second, and no other command but `accuracy` needs it.
    from kpi_pipeline.frames import read_metrics

    with opened_app() as app:
        frame = read_metrics(app.engine, first, last, workspaces)
    # Dates without a time of day, in each format.
    return frame.assign(metric_date=frame["metric_date"].dt.date)


def _check_target(out: Path, force: bool) -> None:
    if not out.parent.is_dir():
        raise KpiError(f"There is no folder {out.parent} for {out.name}.")
    if out.exists() and not out.is_file():
        raise KpiError(f"{out} is not a file. Name another with --out.")
    if out.exists() and not force:
        raise KpiError(f"{out} exists. Replace it with --force, or name another file.")


@contextmanager
def _whole_file(out: Path) -> Iterator[Path]:
    """A path to write to; what is there at the end becomes `out`, unless writing fails."""
    out = out.resolve()
    unfinished = out.with_name(f".{out.name}.{uuid4().hex}.tmp")
    try:
        yield unfinished
        if out.exists():
            copymode(out, unfinished)
        unfinished.replace(out)
    except OSError as error:
        raise KpiError(f"{out} can't be written: {error.strerror or error}.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _write(frame: "pd.DataFrame", file: Path, form: Format) -> None:
    match form:
        case Format.CSV:
            _write_csv(frame, file)
        case Format.PARQUET:
            frame.to_parquet(file, engine="pyarrow", index=False)
        case Format.XLSX:
            _write_workbook(frame, file)


def _write_csv(frame: "pd.DataFrame", to: Path | TextIO) -> None:
    from kpi_pipeline.frames import write_csv

    write_csv(frame, to)


def _write_workbook(frame: "pd.DataFrame", file: Path) -> None:
    import pandas as pd

    if len(frame) > _SHEET_ROWS:
        raise KpiError(
            f"A sheet of Excel holds {_SHEET_ROWS:,} rows, and the export has {len(frame):,}. "
            "Choose fewer dates or clients, or csv or parquet."
        )
    labels = frame["display_name"].str.replace(_NOT_IN_XML, "", regex=True)
    plain = frame.assign(display_name=labels)
    for name in plain.select_dtypes("datetimetz"):
        # Excel knows no time zones.
        plain[name] = plain[name].dt.tz_localize(None)
    # The path has no ending that pandas would take for a format.
    with file.open("wb") as opened, pd.ExcelWriter(opened, engine="openpyxl") as book:
        plain.to_excel(book, sheet_name="client_metrics", index=False, freeze_panes=(1, 1))
        for row in book.sheets["client_metrics"].iter_rows():
            for cell in row:
                # A client called "=1+1" is text, and must not run as a formula.
                if cell.data_type == "f":
                    cell.data_type = "s"
