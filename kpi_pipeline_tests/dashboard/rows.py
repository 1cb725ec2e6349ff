"""Clients, rows and results of checks for the pages, by plain inserts."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Engine, func, insert, select

from kpi_pipeline.db.check_results import StoredOutcome, store_outcomes
from kpi_pipeline.db.tables import client_metrics, client_targets, clients, raw_bison_stats
from kpi_pipeline.domain.calendar import day_start, days_between
from kpi_pipeline.domain.metrics import DailyFact, Target, compute
from kpi_pipeline_tests.conftest import NOW

CHICAGO = ZoneInfo("America/Chicago")
# The business date at NOW.
TODAY = date(2026, 3, 18)
MONTH = date(2026, 3, 1)
ONE_DAY = timedelta(days=1)
# So many days before a row's date its windows reach back at most.
_REACH = 62

Counts = Mapping[str, int]


def put_clients(engine: Engine, *workspaces: str, **changed: Any) -> None:
    """Active clients, called by their workspaces unless `changed` says otherwise."""
    with engine.begin() as connection:
        known = connection.scalar(select(func.count()).select_from(clients)) or 0
        rows = [
            {
                "workspace": workspace,
                "instance": "main",
                "bison_workspace_id": known + number,
                "name": workspace.replace("-", " ").title(),
                "display_name": None,
                "active": True,
                **changed,
            }
            for number, workspace in enumerate(workspaces, start=101)
        ]
        connection.execute(insert(clients), rows)


def put_target(
    engine: Engine,
    workspace: str,
    replies: int | None,
    emails: int | None = None,
    holds_from: date = MONTH,
) -> None:
    """A client's targets from a month on. Rows don't follow: `put_rows` takes their own."""
    with engine.begin() as connection:
        connection.execute(
            insert(client_targets).values(
                workspace=workspace,
                holds_from=holds_from,
                monthly_kpi_target=replies,
                monthly_sending_target=emails,
            )
        )


def of_day(day: date) -> Counts:
    """Counts that differ from day to day."""
    return {
        "sent": 100 + day.day,
        "replied": 5 + day.day % 7,
        "interested": 1 + day.day % 4,
        "bounced": day.day % 3,
        "unsubscribed": day.day % 2,
    }


def put_rows(
    engine: Engine,
    workspace: str,
    dates: Collection[date] = (TODAY,),
    *,
    target: int | None = 60,
    sending_target: int | None = 4000,
    as_of: datetime = NOW,
    counts: Callable[[date], Counts] = of_day,
    source: str = "sync",
    facts: bool = False,
    **changed: Any,
) -> None:
    """The rows of a client's dates in `client_metrics`, computed from these counts of each day.

    `changed` replaces columns, also by values that no computation gives. With `facts` the daily
    facts are stored, too.
    """
    days = days_between(min(dates) - _REACH * ONE_DAY, max(dates))
    history = [
        DailyFact(
            workspace, day, **counts(day), as_of=min(as_of, day_start(day + ONE_DAY, CHICAGO))
        )
        for day in days
    ]
    held = Target(workspace, min(days).replace(day=1), target, sending_target)
    computed = compute(history, [held], dates, CHICAGO)
    with engine.begin() as connection:
        labels = connection.execute(
            select(clients.c.name, clients.c.display_name).where(clients.c.workspace == workspace)
        ).one()
        rows = [
            {
                **asdict(row),
                "workspace_name": labels.name,
                "display_name": labels.display_name or labels.name,
                "source": source,
                "updated_at": row.as_of,
                **changed,
            }
            for row in computed
        ]
        connection.execute(insert(client_metrics), rows)
        if facts:
            connection.execute(
                insert(raw_bison_stats),
                [{**asdict(it), "total_opens": None, "unique_opens": None} for it in history],
            )


def put_outcome(
    engine: Engine,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    severity: str = "WARN",
    clients: Sequence[str] | None = None,
    since: datetime | None = NOW,
) -> None:
    """The last result of a check; None as `since`: it passed."""
    named = [str(row["workspace"]) for row in rows if row.get("workspace")]
    outcome = StoredOutcome(
        name=name,
        asset="client_metrics",
        severity=severity,
        description=f"What {name} found.",
        offenders=rows,
        more=0,
        clients=named if clients is None else clients,
        checked_at=NOW,
        since=since,
    )
    with engine.begin() as connection:
        store_outcomes(connection, [outcome])
