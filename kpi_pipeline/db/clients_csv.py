"""The CSV of clients: every problem is named by line and column before anything is written."""

import csv
import io
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SecretStr,
    ValidationError,
    ValidationInfo,
)

from kpi_pipeline.db.clients import ClientRecord
from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import API_KEY_FORM, is_api_key

_YES_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
_MOST_PROBLEMS_SHOWN = 20

T = TypeVar("T")


def _text(cell: str) -> str:
    if not cell:
        raise ValueError("it is empty")
    if any(ord(character) < 32 for character in cell):
        raise ValueError("it holds a control character")
    return cell


def _instance(cell: str, info: ValidationInfo) -> str:
    known: Collection[str] = info.context or ()
    if _text(cell) not in known:
        raise ValueError(f"{_shown(cell)} is not configured; known: {', '.join(sorted(known))}")
    return cell


def _count(cell: str) -> int:
    if not cell:
        raise ValueError("it is empty")
    if not (re.fullmatch("[0-9]{1,10}", cell) and int(cell) < 2**31):
        raise ValueError(f"{_shown(cell)} is no whole number from 0 to {2**31 - 1}")
    return int(cell)


def _yes_no(cell: str) -> bool:
    if (value := _YES_NO.get(cell.lower())) is None:
        raise ValueError(f"{_shown(cell)} is neither yes nor no")
    return value


def _api_key(cell: str) -> str:
    if not is_api_key(cell):
        raise ValueError(f"it is not of the form {API_KEY_FORM}")
    return cell


def _unless_blank(read: Callable[[str], T]) -> BeforeValidator:
    return BeforeValidator(lambda cell: read(cell) if cell else None)


class ClientRow(BaseModel):
    """One row of the CSV, from its trimmed cells by column.

    A blank cell is None. The field of a column that the file does not have is None as well, but
    is missing in `model_fields_set`. The context of the validation are the known instances.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    instance: Annotated[str, BeforeValidator(_instance)]
    bison_workspace_id: Annotated[int, BeforeValidator(_count)]
    name: Annotated[str, BeforeValidator(_text)]
    display_name: Annotated[str | None, _unless_blank(_text)] = None
    active: Annotated[bool | None, _unless_blank(_yes_no)] = None
    monthly_kpi_target: Annotated[int | None, _unless_blank(_count)] = None
    monthly_sending_target: Annotated[int | None, _unless_blank(_count)] = None
    api_key: Annotated[SecretStr | None, _unless_blank(_api_key)] = None

    def record(self) -> ClientRecord:
        """The client to import: `active` if the row does not say, and without a target or API key
        that it does not give.
        """
        return ClientRecord(
            instance=self.instance,
            bison_workspace_id=self.bison_workspace_id,
            name=self.name,
            display_name=self.display_name,
            active=self.active is not False,
            monthly_kpi_target=self.monthly_kpi_target,
            monthly_sending_target=self.monthly_sending_target,
            api_key=self.api_key,
        )


COLUMNS = tuple(ClientRow.model_fields)
_REQUIRED = [name for name, field in ClientRow.model_fields.items() if field.is_required()]

TEMPLATE = (
    ",".join(COLUMNS)
    + "\n"
    + "main,101,Harbor Analytics,,yes,60,30000,\n"
    + "main,102,Harbor Analytics Europe,Harbor EU,yes,,,\n"
)


def read_file(path: Path, instances: Collection[str]) -> list[ClientRecord]:
    """The clients in the CSV file at `path`.

    Raises:
        KpiError: if the file can't be read, or any row has a problem.
    """
    try:
        # Excel starts its UTF-8 files with a byte order mark, which is no part of a column's name.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise KpiError(f"{path} can't be read: {error.strerror}. Check the name.") from None
    except UnicodeDecodeError:
        raise KpiError(
            f"{path} is not UTF-8 text. Save it as CSV in UTF-8, and import it again."
        ) from None
    return parse(text, instances, str(path))


def parse(text: str, instances: Collection[str], source: str) -> list[ClientRecord]:
    """The clients in a CSV text, as `parse_rows` reads it."""
    return [row.record() for row in parse_rows(text, instances, source)]


def parse_rows(text: str, instances: Collection[str], source: str) -> list[ClientRow]:
    """The rows of a CSV text; `source` names it in messages.

    Raises:
        KpiError: with every problem, by line and column. No message ever shows an API key.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    problems: list[str] = []
    rows: list[ClientRow] = []
    line_of: dict[tuple[str, int], int] = {}
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header, source)
        line_after = reader.line_num + 1
        for cells in reader:
            # A quoted cell can hold line breaks: a row is known by the line on which it starts.
            line, line_after = line_after, reader.line_num + 1
            if not cells:
                continue
            if len(cells) != len(header):
                problems.append(f"line {line}: it does not have {len(header)} columns")
                continue
            by_column = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
            try:
                row = ClientRow.model_validate(by_column, context=instances)
            except ValidationError as error:
                problems += [f"line {line}, {problem}" for problem in _problems_of(error)]
                continue
            first = line_of.setdefault((row.instance, row.bison_workspace_id), line)
            if first != line:
                problems.append(
                    f"line {line}, bison_workspace_id: line {first} has {row.bison_workspace_id} "
                    f"of {row.instance} already"
                )
            rows.append(row)
    except csv.Error as error:
        raise KpiError(
            f"{source} is not well-formed CSV: line {reader.line_num}: {error}. "
            "Compare it with `kpi clients template`."
        ) from None
    if problems:
        more = len(problems) - _MOST_PROBLEMS_SHOWN
        listed = "\n".join(f"  {problem}" for problem in problems[:_MOST_PROBLEMS_SHOWN])
        tail = f"\n  and {more} more" if more > 0 else ""
        raise KpiError(
            f"{source} was not imported. Correct these and import it again:\n{listed}{tail}"
        )
    if not rows:
        raise KpiError(f"{source} holds no clients. Compare it with `kpi clients template`.")
    return rows


def _problems_of(error: ValidationError) -> list[str]:
    return [
        f"{it['loc'][0]}: {it['msg'].removeprefix('Value error, ')}"
        for it in error.errors(include_url=False, include_context=False, include_input=False)
    ]


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


def _shown(cell: str) -> str:
    """A cell as a message may show it: an API key can be in a wrong column."""
    return "what looks like an API key" if "|" in cell else repr(cell)
