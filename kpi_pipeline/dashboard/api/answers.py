"""Answers of the data API: JSON, CSV and Parquet, with entity tags."""

import csv
import io
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from importlib.util import find_spec
from typing import Any

from sqlalchemy import Engine
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from kpi_pipeline.db.exports import RowFilter, stream_rows
from kpi_pipeline.domain.outside_names import for_spreadsheet

_CHUNK_BYTES = 65_536
# Answers hold numbers of clients, so no shared cache may keep them.
_CACHE = "private, no-cache"


def json_answer(
    content: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer in JSON. Percentages are numbers; dates and instants are ISO 8601."""
    body = json.dumps(content, ensure_ascii=False, default=_plain).encode()
    return Response(body, status, {"Cache-Control": _CACHE, **(headers or {})}, "application/json")


def _plain(value: object) -> object:
    match value:
        case Decimal():
            return float(value)
        case datetime() | date():
            return value.isoformat()
        case _:
            raise TypeError(f"no JSON for {type(value)}")


def matches(request: Request, tag: str) -> bool:
    """Whether the caller has the answer with this entity tag already."""
    wanted = request.headers.get("if-none-match", "")
    return wanted.strip() == "*" or tag in [it.strip() for it in wanted.split(",")]


def unchanged(tag: str) -> Response:
    """The answer to a caller who has it already."""
    return Response(status_code=304, headers={"ETag": tag, "Cache-Control": _CACHE})


def csv_answer(engine: Engine, of: RowFilter, tag: str, name: str) -> Response:
    """All rows as CSV, sent as they are read."""

    def lines() -> Iterator[bytes]:
        with engine.connect() as connection:
            yield from csv_lines(of.columns, stream_rows(connection, of))

    return StreamingResponse(
        lines(), headers=_file_headers(tag, f"{name}.csv"), media_type="text/csv; charset=utf-8"
    )


def csv_lines(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """CSV in chunks, in UTF-8. Unknown values are empty fields, and no text is a formula."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(map(_csv_value, row))
        if buffer.tell() > _CHUNK_BYTES:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def _csv_value(value: object) -> object:
    return float(value) if isinstance(value, Decimal) else for_spreadsheet(value)


def parquet_answer(engine: Engine, of: RowFilter, tag: str, name: str) -> Response:
    """All rows as a Parquet file, which `kpi export` would write.

    Raises:
        HTTPException: 501 where the package that writes it is not installed.
    """
    if find_spec("pyarrow") is None:
        raise HTTPException(
            501, "Parquet needs pyarrow on the server: pip install 'kpi-pipeline[export]'."
        )
    # Imported late: no other answer needs pandas.
    from kpi_pipeline.frames import read_rows

    with engine.connect() as connection:
        frame = read_rows(connection, of)
    if "metric_date" in frame:
        frame = frame.assign(metric_date=frame["metric_date"].dt.date)
    with tempfile.TemporaryFile() as file:
        frame.to_parquet(file, engine="pyarrow", index=False)
        file.seek(0)
        return Response(
            file.read(),
            headers=_file_headers(tag, f"{name}.parquet"),
            media_type="application/vnd.apache.parquet",
        )


def _file_headers(tag: str, name: str) -> dict[str, str]:
    return {
        "ETag": tag,
        "Cache-Control": _CACHE,
        "Content-Disposition": f'attachment; filename="{name}"',
    }
