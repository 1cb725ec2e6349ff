"""What a request to the data API asks for, and sentences about what it can't ask for."""

import re
from collections.abc import Sequence
from datetime import date
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

from kpi_pipeline.db.exports import EXPORT_COLUMNS

MOST_ROWS = 10_000
_LISTS = {"workspace", "columns"}
_CURSOR = re.compile(r"(?P<workspace>[a-z0-9][a-z0-9_-]{0,62})/(?P<date>\d{4}-\d\d-\d\d)")


class Format(StrEnum):
    """The format of an answer with rows."""

    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


def _listed(values: object) -> object:
    """The values of a parameter that may be given several times, or with commas."""
    if not isinstance(values, list):
        return values
    return [part for value in values for part in str(value).split(",") if part]


def _plain_date(value: object) -> object:
    # pydantic takes seconds since 1970 for a date, too.
    if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        raise ValueError("write it as 2026-01-31")
    return value


Day = Annotated[date, BeforeValidator(_plain_date)]
Names = Annotated[Sequence[str], BeforeValidator(_listed)]


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RowsQuery(_Query):
    """The parameters of /api/client-metrics."""

    day: Day | None = Field(
        None, alias="date", description="The rows of this date; in place of from and to."
    )
    first: Day | None = Field(None, alias="from", description="The first date; unset: all.")
    last: Day | None = Field(None, alias="to", description="The last date; unset: all.")
    workspace: Names = Field(
        (), description="Workspaces, separated by commas; unset: all, inactive clients included."
    )
    columns: Names = Field(
        (), description="Columns, separated by commas, in this order; unset: all."
    )
    format: Format = Field(
        Format.JSON,
        description="json has pages; csv and parquet hold all rows, as `kpi export` writes them.",
    )
    limit: int = Field(
        1_000, ge=1, le=MOST_ROWS, description="How many rows a page of JSON has at most."
    )
    after: str | None = Field(
        None,
        pattern=f"^{_CURSOR.pattern.replace('?P<workspace>', '').replace('?P<date>', '')}$",
        description="Where a page of JSON begins: take it from the `next` of the page before.",
    )

    def period(self) -> tuple[date | None, date | None]:
        """The first and the last date; None where it is not bounded.

        Raises:
            HTTPException: 400 for dates that contradict each other.
        """
        if self.day is not None:
            if self.first is not None or self.last is not None:
                raise HTTPException(400, "Give either date, or from and to.")
            return self.day, self.day
        if self.first is not None and self.last is not None and self.last < self.first:
            raise HTTPException(400, f"from={self.first} is after to={self.last}.")
        return self.first, self.last

    def column_names(self) -> Sequence[str]:
        """The columns that are asked for, without repetitions.

        Raises:
            HTTPException: 400 for an unknown one, with the nearest that exists.
        """
        for name in self.columns:
            if name not in EXPORT_COLUMNS:
                raise HTTPException(
                    400, f"There is no column {name[:60]!r}{_nearest(name, EXPORT_COLUMNS)}."
                )
        return tuple(dict.fromkeys(self.columns)) or EXPORT_COLUMNS

    def cursor(self) -> tuple[str, date] | None:
        """The client and the date of the row after which the page begins.

        Raises:
            HTTPException: 400 if it is not a cursor.
        """
        if self.after is None:
            return None
        found = _CURSOR.fullmatch(self.after)
        try:
            if found:
                return found["workspace"], date.fromisoformat(found["date"])
        except ValueError:
            pass
        raise HTTPException(400, "after: take it from the `next` of the page before.")


class Active(StrEnum):
    """Which clients."""

    YES = "true"
    NO = "false"
    ALL = "all"


class ClientsQuery(_Query):
    """The parameters of /api/clients."""

    active: Active = Field(Active.YES, description="Which clients: active, inactive, or all.")


class StatusQuery(_Query):
    """/api/status has no parameters."""


_AnyQuery = TypeVar("_AnyQuery", bound=_Query)


def parsed(model: type[_AnyQuery], params: QueryParams) -> _AnyQuery:
    """The parameters of a request.

    Raises:
        HTTPException: 400 with a sentence that names what is wrong.
    """
    known = [field.alias or name for name, field in model.model_fields.items()]
    given: dict[str, object] = {}
    for name in params:
        if name not in known:
            raise HTTPException(400, f"There is no parameter {name[:60]!r}{_nearest(name, known)}.")
        values = params.getlist(name)
        if len(values) > 1 and name not in _LISTS:
            raise HTTPException(400, f"{name} is given {len(values)} times.")
        given[name] = values if name in _LISTS else values[0]
    try:
        return model.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        raise HTTPException(400, f"{first['loc'][0]}: {message}.") from None


def _nearest(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
