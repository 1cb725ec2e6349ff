"""The one way in which stored rows follow their inputs.

All code that changes an input of a client calls this in the same transaction, under the client's
lock. An input of day d (a fact, an event) shows in the rows from d to the end of the next month; a
target in the rows from its month on; a label in all rows.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import fields
from datetime import date
from functools import cache
from operator import attrgetter
from typing import Literal
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, String, bindparam, func, literal, literal_column, select, text
from sqlalchemy.dialects.postgresql import Insert
from sqlalchemy.types import ARRAY, Text

from kpi_pipeline.db.day_zone import require_same_zone
from kpi_pipeline.db.events.overlay import read_counted_events
from kpi_pipeline.db.facts import read_facts, read_targets
from kpi_pipeline.db.tables import client_metrics, clients, kpi_projections, sending_plans
from kpi_pipeline.db.upsert import given_rows, rows_as_json, upsert_from
from kpi_pipeline.domain.calendar import fetch_period, last_date_affected
from kpi_pipeline.domain.events.overlay import days_of_events, overlay
from kpi_pipeline.domain.formatting import listed
from kpi_pipeline.domain.metrics import ComputedRow, compute
from kpi_pipeline.domain.remedies import fill
from kpi_pipeline.errors import KpiError

# Dates of rows, by workspace.
DatesOf = Mapping[str, Collection[date]]
NO_DATES: DatesOf = {}

# What computed a row last.
Source = Literal["sync", "webhook", "import", "edit", "recompute"]

_COMPUTED = [field.name for field in fields(ComputedRow)]
_values_of = attrgetter(*_COMPUTED)

_STORED = text("""
    SELECT workspace, metric_date FROM kpi_projections
    WHERE workspace = ANY(:workspaces) AND metric_date BETWEEN :since AND :until
    UNION
    SELECT workspace, metric_date FROM client_metrics
    WHERE workspace = ANY(:workspaces) AND metric_date BETWEEN :since AND :until
    UNION ALL
    SELECT zone, NULL FROM day_zone
""").bindparams(bindparam("workspaces", type_=ARRAY(Text)))


def update_rows(
    connection: Connection,
    workspaces: Collection[str],
    *,
    since: date,
    until: date | None = None,
    zone: ZoneInfo,
    source: Source,
    dates: Collection[date] = (),
    of_events: Collection[date] = (),
) -> int:
    """Recompute every stored row of these clients that inputs of the days `since` … `until` affect.

    Without `until` these are all rows from `since` on. Rows that are not stored yet are written for
    `dates`, whose facts must be stored, and for the dates `of_events`, even if nothing was fetched
    for such a date. `zone` is that of Email Bison's days. Returns the number of rows.

    Raises:
        KpiError: if the inputs of a row that is not stored yet are missing, or if the stored dates
            are days of another zone; nothing is written then.
    """
    last = date.max if until is None else last_date_affected(until)
    period = {"workspaces": list(workspaces), "since": since, "until": last}
    rows: defaultdict[str, set[date]] = defaultdict(set)
    unfetched: defaultdict[str, set[date]] = defaultdict(set)
    for workspace, day in connection.execute(_STORED, period):
        if day is None:
            # The zone of the stored dates, which comes with the rows.
            require_same_zone(workspace, zone)
        else:
            rows[workspace].add(day)
            unfetched[workspace].add(day)
    for workspace in workspaces:
        rows[workspace].update(dates, of_events)
        unfetched[workspace].update(of_events)
    write_rows(connection, rows, zone, source, unfetched=unfetched)
    return sum(map(len, rows.values()))


def write_rows(
    connection: Connection,
    dates: DatesOf,
    tz: ZoneInfo,
    source: Source,
    *,
    unfetched: DatesOf = NO_DATES,
) -> None:
    """Compute the rows of these clients and dates, and write them into both tables.

    They are computed from facts, events and targets; labels and sending plans come with those of
    `client_metrics`. `unfetched` are the rows that may do without facts of their own day.

    Raises:
        KpiError: if facts of any other row are missing; nothing is written then.
    """
    rows = [(workspace, day) for workspace, days in dates.items() for day in days]
    if not rows:
        return
    days = {day for _, day in rows}
    first, last = fetch_period(min(days), max(days))
    stored = read_facts(connection, list(dates), first, last)
    counted = read_counted_events(connection, list(dates), first, last)
    fetched = {(fact.workspace, fact.date) for fact in stored}
    alone = [row for row in rows if row not in fetched]
    _require_facts({(it, day) for it, day in alone if day not in unfetched.get(it, ())})
    computed = compute(
        overlay(stored, counted),
        read_targets(connection, list(dates)),
        days,
        tz,
        unfetched=days_of_events(alone, counted, tz),
    )
    # dataclasses.asdict copies each value, which takes longer than computing it.
    written = [
        dict(zip(_COMPUTED, _values_of(row), strict=True))
        for row in computed
        if row.metric_date in dates[row.workspace]
    ]
    connection.execute(_writing(source), {"rows": rows_as_json(written)})


def _require_facts(missing: Collection[tuple[str, date]]) -> None:
    """Raise KpiError if any of these rows lacks facts, naming the first client's first dates."""
    if not missing:
        return
    first = min(workspace for workspace, _ in missing)
    days = sorted(day for it, day in missing if it == first)
    named = listed([f"{day}" for day in days], 3)
    raise KpiError(f"{first} has no facts of {named}. {fill(days[0], days[-1], [first])}")


# Building the statement takes longer than executing it for one row.
@cache
def _writing(source: Source) -> Insert:
    """The statement that writes computed rows into both tables.

    All numbers of a row of `client_metrics` are those of its row in `kpi_projections`: a page once
    took its leads from one table and its progress from another, and contradicted itself.
    """
    given = given_rows(kpi_projections, _COMPUTED)
    computed = select(*(given.c[name] for name in _COMPUTED)).cte("computed")
    projections = upsert_from(
        kpi_projections, _COMPUTED, select(*(computed.c[name] for name in _COMPUTED))
    )
    numbers = [name for name in _COMPUTED if name not in ("workspace", "metric_date")]
    plans = ["emails_scheduled_today", "emails_scheduled_tomorrow"]
    columns = ["workspace", "workspace_name", "display_name", "metric_date", "metric_type"]
    selected = (
        select(
            clients.c.workspace,
            clients.c.name,
            func.coalesce(clients.c.display_name, clients.c.name),
            computed.c.metric_date,
            literal_column("'mtd'", String),
            *(computed.c[name] for name in numbers),
            *(sending_plans.c[name] for name in plans),
            literal(source),
        )
        .join_from(computed, clients, clients.c.workspace == computed.c.workspace)
        .outerjoin(
            sending_plans,
            (sending_plans.c.workspace == computed.c.workspace)
            & (sending_plans.c.date == computed.c.metric_date),
        )
    )
    metrics = upsert_from(client_metrics, [*columns, *numbers, *plans, "source"], selected)
    return metrics.add_cte(projections.cte("projections"))
