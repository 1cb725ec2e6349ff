"""What the page of one client reads: who it is, its targets, days, syncs and positive replies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from decimal import Decimal

from sqlalchemy import (
    ARRAY,
    BindParameter,
    Connection,
    Date,
    bindparam,
    func,
    literal,
    select,
    text,
)

from kpi_pipeline.db.tables import (
    client_metrics,
    raw_bison_stats,
    sync_log,
    webhook_events,
)
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.domain.columns import METRIC_COLUMNS

TARGETS = ("monthly_kpi_target", "monthly_sending_target")
PLANS = ("emails_scheduled_today", "emails_scheduled_tomorrow")
# Every number of a row.
NUMBERS = (*METRIC_COLUMNS, *TARGETS, *PLANS)

# How many of the last syncs and positive replies a page lists.
_MOST = 8
_REPLY_DAYS = 90

Number = int | Decimal | None


@dataclass(frozen=True)
class HeldTarget:
    """Targets that hold from a month on, in positive replies and in emails a month."""

    holds_from: date
    positive_replies: int | None
    emails: int | None


@dataclass(frozen=True)
class ClientCard:
    """One client: names, Email Bison's instance, its own API key, and targets, the latest first.

    `key_verified_at` is when the client's own key was last compared with its workspace. `first_row`
    and `last_row` are the dates of its first row and of the last one until a given day, whose
    facts are as of `last_as_of`.
    `mutes` says until when each check was muted for the client, by its name.
    """

    workspace: str
    instance: str
    name: str
    label: str
    active: bool
    first_row: date | None
    last_row: date | None
    last_as_of: datetime | None
    has_key: bool
    key_verified_at: datetime | None
    targets: Sequence[HeldTarget]
    mutes: Mapping[str, datetime]


@dataclass(frozen=True)
class StoredDay:
    """What is stored of one day of a client.

    `numbers` are those of its row, by column, and empty where it has none. `fetched_at` is when
    Email Bison was asked for the day's facts; None for a day that was never fetched, whose row
    holds what events told. `written_at` is when the row was written last.
    """

    date: date
    numbers: Mapping[str, Number]
    as_of: datetime | None
    source: str | None
    fetched_at: datetime | None
    written_at: datetime | None = None


@dataclass(frozen=True)
class ClientSync:
    """What one run did for the client; `error` is None if it succeeded."""

    run_id: str
    finished_at: datetime
    first_date: date
    last_date: date
    api_calls: int
    seconds: Decimal
    key_used: str | None
    error: str | None


@dataclass(frozen=True)
class PositiveReply:
    """An event that counts a positive reply, on `business_date`.

    `source` is how it arrived, and `applied` whether the numbers include it.
    """

    happened_at: datetime
    arrived_at: datetime
    applied_at: datetime | None
    business_date: date
    source: str
    applied: bool


_CARD = text("""
    SELECT c.workspace, c.instance, c.name, coalesce(c.display_name, c.name) AS label, c.active,
        (SELECT min(metric_date) FROM client_metrics
            WHERE workspace = c.workspace AND metric_type = 'mtd') AS first_row,
        l.metric_date AS last_row, l.as_of AS last_as_of,
        k.workspace IS NOT NULL AS has_key, k.verified_at AS key_verified_at,
        t.months, t.replies, t.emails,
        (SELECT jsonb_object_agg(split_part(name, ':', 2), muted_until) FROM alert_mutes
            WHERE split_part(name, ':', 1) = c.workspace AND position(':' IN name) > 0
        ) AS mutes
    FROM clients c
    LEFT JOIN client_api_keys k USING (workspace)
    LEFT JOIN LATERAL (
        SELECT metric_date, as_of FROM client_metrics
        WHERE workspace = c.workspace AND metric_type = 'mtd' AND metric_date <= :day
        ORDER BY metric_date DESC
        LIMIT 1
    ) l ON true
    CROSS JOIN LATERAL (
        SELECT array_agg(holds_from ORDER BY holds_from DESC) AS months,
            array_agg(monthly_kpi_target ORDER BY holds_from DESC) AS replies,
            array_agg(monthly_sending_target ORDER BY holds_from DESC) AS emails
        FROM client_targets
        WHERE workspace = c.workspace
    ) t
    WHERE c.workspace = :workspace
""")


def read_card(connection: Connection, workspace: str, day: date) -> ClientCard | None:
    """The client, active or not, with its last row until `day`; None if there is no such client."""
    if "\0" in workspace:
        # An address may hold it, and no text of PostgreSQL does.
        return None
    row = connection.execute(_CARD, {"workspace": workspace, "day": day}).mappings().one_or_none()
    if row is None:
        return None
    values = dict(row)
    columns = [values.pop(name) or [] for name in ("months", "replies", "emails")]
    mutes = {it: datetime.fromisoformat(at) for it, at in (values.pop("mutes") or {}).items()}
    return ClientCard(
        **values, mutes=mutes, targets=[HeldTarget(*it) for it in zip(*columns, strict=True)]
    )


_FIRST: BindParameter[date] = bindparam("first")
_LAST: BindParameter[date] = bindparam("last")
_WORKSPACE: BindParameter[str] = bindparam("workspace")
_ROWS = (
    select(
        client_metrics.c.metric_date,
        client_metrics.c.as_of.label("row_as_of"),
        client_metrics.c.source,
        client_metrics.c.updated_at,
        *(client_metrics.c[name] for name in NUMBERS),
    )
    .where(
        client_metrics.c.workspace == _WORKSPACE,
        client_metrics.c.metric_type == "mtd",
        client_metrics.c.metric_date.between(_FIRST, _LAST),
    )
    .subquery("numbers")
)
_FACTS = (
    select(raw_bison_stats.c.date, raw_bison_stats.c.as_of)
    .where(raw_bison_stats.c.workspace == _WORKSPACE, raw_bison_stats.c.date.between(_FIRST, _LAST))
    .subquery("facts")
)
_DAY = func.coalesce(_ROWS.c.metric_date, _FACTS.c.date)
_DAYS = (
    select(
        _DAY,
        _ROWS.c.metric_date.is_not(None),
        _ROWS.c.row_as_of,
        _ROWS.c.source,
        _FACTS.c.as_of,
        _ROWS.c.updated_at,
        *(_ROWS.c[name] for name in NUMBERS),
    )
    .outerjoin_from(_ROWS, _FACTS, _FACTS.c.date == _ROWS.c.metric_date, full=True)
    .order_by(_DAY)
)


def read_days(
    connection: Connection, workspace: str, first: date, last: date
) -> dict[date, StoredDay]:
    """The days from `first` to `last` of which a row or facts are stored, in the order of time."""
    period = {"workspace": workspace, "first": first, "last": last}
    found = {}
    for row in connection.execute(_DAYS, period):
        day, has_row, as_of, source, fetched_at, written_at, *numbers = row
        values = dict(zip(NUMBERS, numbers, strict=True)) if has_row else {}
        found[day] = StoredDay(day, values, as_of, source, fetched_at, written_at)
    return found


_SYNCS = (
    select(*(sync_log.c[it.name] for it in fields(ClientSync)))
    .where(sync_log.c.workspace == _WORKSPACE)
    .order_by(sync_log.c.finished_at.desc())
    .limit(_MOST)
)


def read_syncs(connection: Connection, workspace: str) -> list[ClientSync]:
    """The last syncs of the client, the latest first."""
    found = connection.execute(_SYNCS, {"workspace": workspace}).mappings()
    return [ClientSync(**row) for row in found]


_events = webhook_events.c
_HAPPENED = func.coalesce(_events.happened_at, _events.arrived_at)
_REPLIES = (
    select(
        _HAPPENED.label("happened_at"),
        _events.arrived_at,
        _events.applied_at,
        _events.business_date,
        _events.source,
        (_events.status == literal("applied")).label("applied"),
    )
    .where(
        _events.metric == text("'interested'"),
        _events.workspace == _WORKSPACE,
        # Each day is one lookup in the index of positive replies; a range would read those of all
        # clients.
        _events.business_date == func.any(bindparam("days", type_=ARRAY(Date))),
        _events.status.in_(("applied", "received")),
    )
    .order_by(_HAPPENED.desc(), _events.arrived_at.desc())
    .limit(_MOST)
)


def read_positive_replies(
    connection: Connection, workspace: str, last: date
) -> list[PositiveReply]:
    """The last events that count a positive reply, in the 90 days to `last`, the latest first."""
    days = days_between(last - timedelta(days=_REPLY_DAYS - 1), last)
    found = connection.execute(_REPLIES, {"workspace": workspace, "days": days}).mappings()
    return [PositiveReply(**row) for row in found]
