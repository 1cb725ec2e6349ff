"""Adds Email Bison's workspaces to the clients' CSV that people fill in."""

import csv
import io
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kpi_pipeline.db.registry.clients_csv import (
    COLUMNS,
    cell_text,
    column_name,
    read_text,
    separator_of,
)
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.errors import KpiError

# API keys may be filled in.
_MODE = 0o600
_NEEDED = ("instance", "bison_workspace_id", "name")


@dataclass(frozen=True)
class FoundWorkspace:
    """A workspace of an instance: its identity, and its name, which is a label."""

    instance: str
    bison_workspace_id: int
    name: str

    @property
    def identity(self) -> tuple[str, str]:
        """What a client is recognized by, as the file has it."""
        return self.instance, str(self.bison_workspace_id)


def add_workspaces(
    path: Path, found: Iterable[FoundWorkspace], known: Collection[tuple[str, int]] = ()
) -> str:
    """Add a row for each workspace that is neither in the file nor `known`; say what was done.

    Everything else in the file stays as it is, whatever people have filled in. `known` are the
    clients in the database. In the new rows, all but identity and name is blank.

    Raises:
        KpiError: if the file can't be read or written, or is not such a CSV.
    """
    taken = {(instance, str(number)) for instance, number in known}
    header: Sequence[str] = COLUMNS
    separator, line_end, encoding, before = ",", "\n", "utf-8", ""
    is_new = not path.exists()
    if not is_new:
        text, encoding = read_text(path)
        separator, _, rows = separator_of(text, str(path))
        header, in_file = _listed(rows, separator, path)
        taken |= in_file
        line_end = "\r\n" if "\r\n" in text else "\n"
        before = "" if text.endswith(("\r", "\n")) else line_end
    new = [it for it in found if it.identity not in taken]
    if not new:
        return (
            f"{path} was not written: every workspace is a client already."
            if is_new
            else f"{path} stays as it is: it has every workspace that is not a client already."
        )
    output = io.StringIO()
    writer = csv.writer(output, delimiter=separator, lineterminator=line_end)
    if is_new:
        writer.writerow(header)
    writer.writerows([_cells(it, header) for it in new])
    _append(path, (before + output.getvalue()).encode(encoding))
    added = counted(len(new), "workspace" if is_new else "new workspace")
    return f"{path} has {added} to fill in{'' if is_new else ', at its end'}."


def _listed(text: str, separator: str, path: Path) -> tuple[list[str], set[tuple[str, str]]]:
    """The columns of the file, and the workspaces that it has. Cells may be wrong otherwise."""
    try:
        rows = _rows_of(text, separator)
        header = [column_name(cell) for cell in next(rows, [])]
        if not set(_NEEDED) <= set(header):
            raise KpiError(
                f"{path} is no list of clients: it lacks a column of {', '.join(_NEEDED)}. Move it "
                "away, or name another file with --clients."
            )
        cells: Iterator[Mapping[str, str]] = (dict(zip(header, row, strict=False)) for row in rows)
        return header, {(it.get("instance", ""), it.get("bison_workspace_id", "")) for it in cells}
    except csv.Error as error:
        raise KpiError(f"{path} is not well-formed CSV: {error}. Correct it first.") from None


def _rows_of(text: str, separator: str) -> Iterator[list[str]]:
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True):
        cells = [cell.strip() for cell in row]
        if any(cells):
            yield cells


def _cells(workspace: FoundWorkspace, header: Sequence[str]) -> list[str]:
    values = {name: cell_text(value) for name, value in asdict(workspace).items()}
    return [values.get(name, "") for name in header]


def _append(path: Path, data: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, _MODE)
        with os.fdopen(descriptor, "ab") as file:
            file.write(data)
    except OSError as error:
        raise KpiError(f"{path} can't be written: {error.strerror}. Check the folder.") from None
