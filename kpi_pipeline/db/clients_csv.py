"""The CSV of clients: each fault named by line and column, before anything is written."""

import csv
import io
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import SecretStr

from kpi_pipeline.db.clients import ClientRecord
from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import API_KEY_FORM, is_api_key

COLUMNS = (
    "instance",
    "bison_workspace_id",
    "name",
    "display_name",
    "active",
    "monthly_kpi_target",
    "monthly_sending_target",
    "api_key",
)
_REQUIRED = ("instance", "bison_workspace_id", "name")
_YES_NO = {"": True, "yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_MOST_FAULTS_SHOWN = 20

TEMPLATE = (
    ",".join(COLUMNS)
    + "\n"
    + "main,101,Harbor Analytics,,yes,60,30000,\n"
    + "main,102,Harbor Analytics Europe,Harbor EU,yes,,,\n"
)


def read_file(path: Path, instances: Collection[str]) -> list[ClientRecord]:
    """The clients in the CSV file at `path`.

    Raises:
        KpiError: if the file can't be read, or any row has a fault.
    """
    try:
        # Excel starts its UTF-8 files with a mark that must not become part of a column's name.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise KpiError(f"{path} can't be read: {error.strerror}. Check the name.") from None
    except UnicodeDecodeError:
        raise KpiError(
            f"{path} is not UTF-8 text. Save it as CSV in UTF-8, and import it again."
        ) from None
    return parse(text, instances, str(path))


def parse(text: str, instances: Collection[str], source: str) -> list[ClientRecord]:
    """The clients in a CSV text; `source` names it in messages.

    Names are trimmed. A blank `active` means yes; a blank target means no target; a blank
    `api_key` leaves the client to the master key, or to the key that it has already.

    Raises:
        KpiError: with every fault, by line and column. A fault of an API key never shows the key.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header, source)
        faults: list[str] = []
        records: list[ClientRecord] = []
        seen: dict[tuple[str, int], int] = {}
        line_after = reader.line_num + 1
        for row in reader:
            # A quoted cell can hold line breaks: a row is known by the line on which it starts.
            line, line_after = line_after, reader.line_num + 1
            if not row:
                continue
            if len(row) != len(header):
                faults.append(f"line {line}: it does not have {len(header)} columns")
                continue
            record = _Row(dict(zip(header, row, strict=True)), line, faults).record(instances)
            if record is None:
                continue
            identity = (record.instance, record.bison_workspace_id)
            if identity in seen:
                faults.append(
                    f"line {line}, bison_workspace_id: {record.bison_workspace_id} of "
                    f"{record.instance} stands in line {seen[identity]} already"
                )
            seen.setdefault(identity, line)
            records.append(record)
    except csv.Error as error:
        raise KpiError(
            f"{source} is no well-formed CSV: line {reader.line_num}: {error}. "
            "Compare it with `kpi clients template`."
        ) from None
    if faults:
        more = len(faults) - _MOST_FAULTS_SHOWN
        listed = "\n".join(f"  {fault}" for fault in faults[:_MOST_FAULTS_SHOWN])
        tail = f"\n  and {more} more" if more > 0 else ""
        raise KpiError(
            f"{source} was not imported. Mend these and import it again:\n{listed}{tail}"
        )
    if not records:
        raise KpiError(f"{source} holds no clients. Compare it with `kpi clients template`.")
    return records


def _check_header(header: list[str], source: str) -> None:
    if not set(header) & set(COLUMNS):
        # Without a header the first line is a client, API key and all: it is not repeated.
        raise KpiError(
            f"{source}, line 1: there is no header of column names, separated by commas. "
            "Compare it with `kpi clients template`."
        )
    missing = [name for name in _REQUIRED if name not in header]
    unknown = [name for name in header if name not in COLUMNS]
    twice = sorted({name for name in header if header.count(name) > 1})
    parts = [
        f"{what} {', '.join(repr(name) for name in names)}"
        for what, names in (("lacks", missing), ("has unknown", unknown), ("has twice", twice))
        if names
    ]
    if parts:
        raise KpiError(
            f"{source}, line 1: the header {'; '.join(parts)}. "
            "Compare it with `kpi clients template`."
        )


class _Row:
    """One row of the CSV; collects its faults."""

    def __init__(self, cells: Mapping[str, str], line: int, faults: list[str]) -> None:
        self._cells = {name: cell.strip() for name, cell in cells.items()}
        self._line = line
        self._faults = faults

    def record(self, instances: Collection[str]) -> ClientRecord | None:
        """The client of this row, or None if it has a fault."""
        before = len(self._faults)
        instance = self._text("instance")
        if instance and instance not in instances:
            known = ", ".join(sorted(instances))
            self._fault("instance", f"{_shown(instance)} is not configured; known: {known}")
        workspace_id = self._count("bison_workspace_id", required=True)
        name = self._text("name")
        display_name = self._plain("display_name")
        active = _YES_NO.get(self._cell("active").lower())
        if active is None:
            self._fault("active", f"{_shown(self._cell('active'))} is neither yes nor no")
        kpi_target = self._count("monthly_kpi_target")
        sending_target = self._count("monthly_sending_target")
        api_key = self._cell("api_key")
        if api_key and not is_api_key(api_key):
            self._fault("api_key", f"it is not of the form {API_KEY_FORM}")
        if len(self._faults) > before or workspace_id is None or active is None:
            return None
        return ClientRecord(
            instance=instance,
            bison_workspace_id=workspace_id,
            name=name,
            display_name=display_name or None,
            active=active,
            monthly_kpi_target=kpi_target,
            monthly_sending_target=sending_target,
            api_key=SecretStr(api_key) if api_key else None,
        )

    def _cell(self, column: str) -> str:
        return self._cells.get(column, "")

    def _fault(self, column: str, what: str) -> None:
        self._faults.append(f"line {self._line}, {column}: {what}")

    def _text(self, column: str) -> str:
        cell = self._plain(column)
        if not cell:
            self._fault(column, "it is empty")
        return cell

    def _plain(self, column: str) -> str:
        cell = self._cell(column)
        if any(ord(character) < 32 for character in cell):
            self._fault(column, "it holds a control character")
        return cell

    def _count(self, column: str, *, required: bool = False) -> int | None:
        cell = self._cell(column)
        if not cell:
            if required:
                self._fault(column, "it is empty")
            return None
        if not (re.fullmatch("[0-9]{1,10}", cell) and int(cell) < 2**31):
            self._fault(column, f"{_shown(cell)} is no whole number from 0 to {2**31 - 1}")
            return None
        return int(cell)


def _shown(cell: str) -> str:
    """A cell as a message may show it: an API key strays into other columns, too."""
    return "what looks like an API key" if "|" in cell else repr(cell)
