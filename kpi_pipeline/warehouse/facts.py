"""Daily facts and sending plans: what Bison told, and when it was asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, func, select

from kpi_pipeline.warehouse.tables import raw_bison_stats, sending_plans
from kpi_pipeline.warehouse.upsert import upsert


@dataclass(frozen=True)
class SendingPlan:
    """How many emails Bison planned, on the day `date`, for that day and the next."""

    date: date
    today: int
    tomorrow: int
    as_of: datetime


def store_facts(
    connection: Connection,
    workspace: str,
    days: Mapping[date, Mapping[str, int]],
    as_of: datetime,
) -> None:
    """Write a client's daily facts; what was asked for later than `as_of` stays.

    Nothing is deleted: each day is replaced by its new row, or left.
    """
    rows = [
        {"workspace": workspace, "date": day, **counts, "as_of": as_of}
        for day, counts in days.items()
    ]
    upsert(connection, raw_bison_stats, rows, newer="as_of")


def store_plan(connection: Connection, workspace: str, plan: SendingPlan) -> None:
    """Write a client's sending plan of one day."""
    row = {
        "workspace": workspace,
        "date": plan.date,
        "emails_scheduled_today": plan.today,
        "emails_scheduled_tomorrow": plan.tomorrow,
        "as_of": plan.as_of,
    }
    upsert(connection, sending_plans, [row], newer="as_of")


def are_known_since(
    connection: Connection, workspace: str, first: date, last: date, moment: datetime
) -> bool:
    """Whether each of the days `first` … `last` was asked for at `moment` or later."""
    statement = select(func.count()).where(
        raw_bison_stats.c.workspace == workspace,
        raw_bison_stats.c.date.between(first, last),
        raw_bison_stats.c.as_of >= moment,
    )
    return connection.scalar(statement) == (last - first).days + 1
