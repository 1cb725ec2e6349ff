"""The checks that failed when they were done last."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from kpi_pipeline.warehouse.tables import check_outcomes


@dataclass(frozen=True)
class FailingCheck:
    """A check that has failed from `since` on; of its offenders, `more` are not among the rows."""

    name: str
    asset: str
    severity: str
    description: str
    offenders: Sequence[Mapping[str, object]]
    more: int
    cause: str | None
    since: datetime


def failing_checks(connection: Connection) -> list[FailingCheck]:
    """All of them, by name."""
    table = check_outcomes.c
    statement = (
        select(
            table.check_name.label("name"),
            table.asset,
            table.severity,
            table.description,
            table.offenders,
            table.more,
            table.cause,
            table.failing_since.label("since"),
        )
        .where(~table.passed)
        .order_by(table.check_name)
    )
    return [FailingCheck(**row) for row in connection.execute(statement).mappings()]


def check_names(connection: Connection) -> list[str]:
    """The names of all checks that were ever done."""
    return list(connection.scalars(select(check_outcomes.c.check_name)))
