"""Each client's own thresholds for the checks `sending_pace` and `reply_rate`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Connection, func, select, update

from kpi_pipeline.db.coordination.locks import lock_clients
from kpi_pipeline.db.tables import clients

# The columns of `clients` and of the CSV, in percent. NULL: the check's default holds.
THRESHOLDS = ("max_sending_shortfall", "min_reply_rate")

_PERCENT = re.compile(r"([0-9]{1,3})(?:[.,]([0-9]{1,2}))? ?%?")


@dataclass(frozen=True)
class Thresholds:
    """A client's own thresholds, in percent; None where the default of the check holds.

    `max_sending_shortfall` is how far its emails may be behind its sending target, and
    `min_reply_rate` the least share of its emails that are replied to.
    """

    max_sending_shortfall: Decimal | None = None
    min_reply_rate: Decimal | None = None


def read_percent(text: str) -> Decimal:
    """A percentage as people and Excel write it: 15, 0.3, 0,30 or 15 %.

    Raises:
        ValueError: with a phrase that follows the text and "is".
    """
    if found := _PERCENT.fullmatch(text.strip()):
        percent = Decimal(f"{found[1]}.{found[2] or 0}")
        if percent <= 100:
            return percent
    raise ValueError("no percentage from 0 to 100 with at most two decimal places")


def shown_percent(percent: Decimal) -> str:
    """The percentage without zeros at its end: 15, 0.3."""
    return f"{percent.normalize():f}"


def read_thresholds(connection: Connection) -> dict[str, Thresholds]:
    """The thresholds of every client, active or not, ordered by workspace."""
    columns = clients.c
    statement = select(columns.workspace, *(columns[name] for name in THRESHOLDS))
    rows = connection.execute(statement.order_by(columns.workspace))
    return {row.workspace: Thresholds(*row[1:]) for row in rows}


def set_thresholds(
    connection: Connection, workspace: str, changes: Mapping[str, Decimal | None]
) -> None:
    """Change those of a client's thresholds that `changes` names; None: the default holds."""
    lock_clients(connection, [workspace])
    connection.execute(
        update(clients)
        .where(clients.c.workspace == workspace)
        .values(**changes, updated_at=func.now())
    )
