"""The CSV of clients: every problem is named by line and column before anything is written."""

import codecs
import csv
import io
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from datetime import date
from decimal import Decimal
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
from sqlalchemy import Connection

from kpi_pipeline.db.registry.client_import import KEEP, MAY_BE_KEPT, ClientRecord, read_states
from kpi_pipeline.db.registry.clients import all_clients
from kpi_pipeline.db.registry.thresholds import read_percent, shown_percent
from kpi_pipeline.domain.outside_names import for_spreadsheet
from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import API_KEY_FORM, is_api_key

_YES_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
# What Excel writes, by language and settings; the first is the standard's.
_SEPARATORS = (",", ";", "\t")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[ \t]*(?:\r\n|\r|\n|$)', re.IGNORECASE)
# 1500, 1,500 or 1 500, where the space can be a no-break or a thin one; then perhaps .0 or .00. In
# 1.500 the point can separate thousands or decimals, so it is no number here.
_WHOLE_NUMBER = re.compile(
    "(?:[0-9]{1,10}"
    "|[1-9][0-9]{0,2}([, \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}])[0-9]{3}"
    r"(?:\1[0-9]{3})*)(?:\.0{1,2})?"
)
_API_KEY = re.compile(r"[0-9]\|[A-Za-z0-9]{20}")
# A long run of letters and digits may be the secret part of an API key; digits alone are a number.
_SECRET_LIKE = re.compile(r"(?![0-9]+$)[A-Za-z0-9]{20,}")
_MOST_PROBLEMS_SHOWN = 20

T = TypeVar("T")


def _text(cell: str) -> str:
    # In an export, an apostrophe before it keeps such a name from being a formula.
    if cell.startswith("'") and _is_formula(cell):
        cell = cell[1:]
    if not cell:
        raise ValueError("it is empty")
    if any(ord(character) < 32 for character in cell):
        raise ValueError("it holds a control character")
    if _API_KEY.search(cell):
        raise ValueError("it holds an API key, which belongs into the column api_key")
    return cell


def _is_formula(text: str) -> bool:
    """Whether the text, or what follows apostrophes, is a formula to a spreadsheet."""
    plain = text.lstrip("'")
    return for_spreadsheet(plain) != plain


def _instance(cell: str, info: ValidationInfo) -> str:
    known: Collection[str] = info.context or ()
    if _text(cell) not in known:
        raise ValueError(f"{_shown(cell)} is not configured; known: {', '.join(sorted(known))}")
    return cell


def read_count(cell: str) -> int:
    """A whole number as people and Excel write it: 1500, 1,500, 1 500 or 1500.00.

    Raises:
        ValueError: with a phrase that says what is wrong.
    """
    if not cell:
        raise ValueError("it is empty")
    if _WHOLE_NUMBER.fullmatch(cell):
        number = int(re.sub("[^0-9]", "", cell.partition(".")[0]))
        if number < 2**31:
            return number
    raise ValueError(f"{_shown(cell)} is no whole number from 0 to {2**31 - 1}")


def _percent(cell: str) -> Decimal:
    try:
        return read_percent(cell)
    except ValueError as error:
        raise ValueError(f"{_shown(cell)} is {error}") from None


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
    bison_workspace_id: Annotated[int, BeforeValidator(read_count)]
    name: Annotated[str, BeforeValidator(_text)]
    display_name: Annotated[str | None, _unless_blank(_text)] = None
    active: Annotated[bool | None, _unless_blank(_yes_no)] = None
    monthly_kpi_target: Annotated[int | None, _unless_blank(read_count)] = None
    monthly_sending_target: Annotated[int | None, _unless_blank(read_count)] = None
    max_sending_shortfall: Annotated[Decimal | None, _unless_blank(_percent)] = None
    min_reply_rate: Annotated[Decimal | None, _unless_blank(_percent)] = None
    api_key: Annotated[SecretStr | None, _unless_blank(_api_key)] = None

    def record(self, line: int) -> ClientRecord:
        """The client to import. What an absent column would say stays as it is; a blank cell
        removes a display name, a target or a threshold, and leaves `active` and the API key as
        they are.
        """
        kept = dict.fromkeys(set(MAY_BE_KEPT) - self.model_fields_set, KEEP)
        return ClientRecord(**{**dict(self), **kept}, line=line)


COLUMNS = tuple(ClientRow.model_fields)
_REQUIRED = [name for name, field in ClientRow.model_fields.items() if field.is_required()]
# Excel can leave out separators at the end of a row. Where blank and absent mean the same, a row
# that ends early is complete.
_MAY_BE_CUT_OFF = {"active", "api_key"}

TEMPLATE = (
    ",".join(COLUMNS)
    + "\n"
    + "main,101,Harbor Analytics,,yes,60,30000,,,\n"
    + "main,102,Harbor Analytics Europe,Harbor EU,yes,,,,,\n"
)


def read_file(path: Path, instances: Collection[str]) -> list[ClientRecord]:
    """The clients in the CSV file at `path`, in UTF-8 or in UTF-16 with a byte order mark.

    Raises:
        KpiError: if the file can't be read, or any row has a problem.
    """
    return parse(read_text(path)[0], instances, str(path))


def read_text(path: Path) -> tuple[str, str]:
    """The text of a CSV file, and the name of the encoding that continues it.

    Raises:
        KpiError: if it can't be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise KpiError(f"{path} can't be read: {error.strerror}. Check the name.") from None
    # Excel starts its Unicode files with a byte order mark, which is no part of a column's name.
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise KpiError(
            f"{path} is not {'UTF-16' if wide else 'UTF-8'} text. Save it as CSV in UTF-8, and "
            "import it again."
        ) from None
    if not wide:
        return text, "utf-8"
    return text, "utf-16-le" if data.startswith(codecs.BOM_UTF16_LE) else "utf-16-be"


def parse(text: str, instances: Collection[str], source: str) -> list[ClientRecord]:
    """The clients in a CSV text; `source` names it in messages.

    Commas, semicolons or tabs separate its columns, or what a first line `sep=…` names. Column
    names are read in any case; blank rows and blank columns at the end are passed over.

    Raises:
        KpiError: with every problem, by line and column. No message ever shows an API key.
    """
    separator, lines_before, text = separator_of(text, source)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] = []
    problems: list[str] = []
    records: list[ClientRecord] = []
    line_of: dict[tuple[str, int], int] = {}
    line_after = lines_before + 1
    try:
        for row in reader:
            # A quoted cell can hold line breaks: a row is known by the line on which it starts.
            line, line_after = line_after, lines_before + reader.line_num + 1
            cells = _without_blank_end([cell.strip() for cell in row])
            if not cells:
                continue
            if not header:
                header = _column_names(cells, f"{source}, line {line}")
                continue
            if len(cells) > len(header) or set(header[len(row) :]) - _MAY_BE_CUT_OFF:
                problems.append(f"line {line}: it does not have {len(header)} columns")
                continue
            cells += [""] * (len(header) - len(cells))
            by_column = dict(zip(header, cells, strict=True))
            try:
                client = ClientRow.model_validate(by_column, context=instances)
            except ValidationError as error:
                problems += [f"line {line}, {problem}" for problem in _problems_of(error)]
                continue
            first = line_of.setdefault((client.instance, client.bison_workspace_id), line)
            if first != line:
                problems.append(
                    f"line {line}, bison_workspace_id: line {first} has "
                    f"{client.bison_workspace_id} of {client.instance} already"
                )
            records.append(client.record(line))
    except csv.Error as error:
        raise KpiError(
            f"{source} is not well-formed CSV: line {lines_before + reader.line_num}: {error}. "
            "Compare it with `kpi clients template`."
        ) from None
    if not header:
        raise _no_header(f"{source}, line {lines_before + 1}")
    if problems:
        raise KpiError(
            f"{source} was not imported. Correct these and import it again:\n"
            f"{shown_lines(problems)}"
        )
    if not records:
        raise KpiError(f"{source} holds no clients. Compare it with `kpi clients template`.")
    return records


def export(connection: Connection, month: date) -> str:
    """All clients as the text of a file to edit and import again, without their API keys.

    The targets are those that hold in the month that begins on `month`.
    """
    clients = all_clients(connection)
    states = read_states(connection, [it.workspace for it in clients], month)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for it in clients:
        values = {**asdict(it), **asdict(states[it.workspace]), "api_key": None}
        rows.writerow([cell_text(values[name]) for name in COLUMNS])
    return text.getvalue()


def cell_text(value: object) -> str:
    """A value as the CSV has it; an import reads the same value from it."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case Decimal():
            return shown_percent(value)
        case str():
            # An import refuses control characters, which Email Bison's names can have.
            plain = "".join(it if ord(it) >= 32 else " " for it in value).strip()
            return f"'{plain}" if _is_formula(plain) else plain
        case _:
            return str(value)


def shown_lines(problems: Sequence[str]) -> str:
    """The first problems on lines of their own, and how many more there are."""
    more = len(problems) - _MOST_PROBLEMS_SHOWN
    listed = "\n".join(f"  {problem}" for problem in problems[:_MOST_PROBLEMS_SHOWN])
    return f"{listed}\n  and {more} more" if more > 0 else listed


def separator_of(text: str, source: str) -> tuple[str, int, str]:
    """The separator of the columns, the number of lines before the CSV, and the CSV."""
    if named := _SEPARATOR_LINE.match(text):
        separator = named.group(1)
        if separator not in _SEPARATORS:
            raise KpiError(
                f"{source}, line 1: {separator!r} can't separate columns. "
                "Use a comma, a semicolon or a tab."
            )
        return separator, 1, text[named.end() :]

    def known_columns(separator: str) -> int:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        try:
            header = next((row for row in rows if any(cell.strip() for cell in row)), [])
        except csv.Error:
            return 0
        return len({column_name(cell) for cell in header} & set(COLUMNS))

    return max(_SEPARATORS, key=known_columns), 0, text


def _column_names(cells: Sequence[str], place: str) -> list[str]:
    header = [column_name(cell) for cell in cells]
    if not set(header) & set(COLUMNS):
        # Without a header the first line is a client, API key and all: it is not repeated.
        raise _no_header(place)
    missing = [name for name in _REQUIRED if name not in header]
    unknown = [cell for cell, name in zip(cells, header, strict=True) if name not in COLUMNS]
    twice = sorted({name for name in header if name in COLUMNS and header.count(name) > 1})
    parts = [
        f"{what} {', '.join(map(_shown, names))}"
        for what, names in (("lacks", missing), ("has unknown", unknown), ("has twice", twice))
        if names
    ]
    if parts:
        raise KpiError(
            f"{place}: the header {'; '.join(parts)}. Compare it with `kpi clients template`."
        )
    return header


def column_name(cell: str) -> str:
    """The name of a column, from its cell of the header."""
    return cell.strip().casefold()


def _no_header(place: str) -> KpiError:
    return KpiError(
        f"{place}: there is no header of column names, separated by commas, semicolons or tabs. "
        "Compare it with `kpi clients template`."
    )


def _without_blank_end(cells: list[str]) -> list[str]:
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _problems_of(error: ValidationError) -> list[str]:
    return [
        f"{it['loc'][0]}: {it['msg'].removeprefix('Value error, ')}"
        for it in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def _shown(cell: str) -> str:
    """A cell as a message may show it: an API key can be in a wrong column."""
    secret_like = "|" in cell or _SECRET_LIKE.search(cell)
    return "what looks like an API key" if secret_like else repr(cell)
