"""The database of the system before this one, with its tables, its numbers and its faults.

Column names and types are those of its tables; clients and numbers are invented.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from sqlalchemy import Connection, text

from kpi_pipeline.db.upsert import rows_as_json
from kpi_pipeline.domain.calendar import days_between, days_in_month, first_of_month

DAYS = 90
INSTANCE = "Agency One"

_TABLES = """
CREATE TABLE {schema}.client_registry (
    workspace_id integer PRIMARY KEY,
    workspace_name text NOT NULL UNIQUE,
    display_name text,
    is_active boolean DEFAULT true,
    billing_type text NOT NULL DEFAULT 'per_lead',
    price_per_lead numeric(10, 2) DEFAULT 0,
    retainer_amount numeric(10, 2) DEFAULT 0,
    monthly_kpi_target integer DEFAULT 0,
    monthly_sending_target integer DEFAULT 0,
    kpi_dashboard_enabled boolean DEFAULT true,
    bison_workspace_id integer,
    bison_workspace_name text,
    bison_instance text,
    bison_api_key text,
    slack_webhook_url text,
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now()
);
CREATE TABLE {schema}.client_metrics (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_name text NOT NULL REFERENCES {schema}.client_registry (workspace_name),
    metric_date date NOT NULL,
    metric_type text NOT NULL CHECK (metric_type IN ('daily', 'monthly', 'mtd')),
    emails_sent integer DEFAULT 0,
    emails_sent_mtd integer DEFAULT 0,
    projection_emails_eom integer DEFAULT 0,
    positive_replies integer DEFAULT 0,
    positive_replies_mtd integer DEFAULT 0,
    positive_replies_last_7_days integer DEFAULT 0,
    positive_replies_last_14_days integer DEFAULT 0,
    positive_replies_last_30_days integer DEFAULT 0,
    positive_replies_current_month integer DEFAULT 0,
    positive_replies_last_month integer DEFAULT 0,
    projection_positive_replies_eom integer DEFAULT 0,
    mtd_leads_progress numeric(5, 2) DEFAULT 0,
    projection_replies_progress numeric(5, 2) DEFAULT 0,
    last_week_vs_week_before_progress numeric(5, 2) DEFAULT 0,
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now(),
    UNIQUE (workspace_name, metric_date, metric_type)
);
CREATE TABLE {schema}.client_leads (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    workspace_name text NOT NULL,
    lead_email text,
    interested boolean DEFAULT false,
    date_received timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE VIEW {schema}.client_latest_metrics AS
SELECT DISTINCT ON (workspace_name) workspace_name, metric_date, emails_sent_mtd,
    projection_emails_eom, positive_replies_mtd, positive_replies_last_7_days,
    positive_replies_last_30_days, projection_positive_replies_eom, mtd_leads_progress,
    projection_replies_progress, updated_at
FROM {schema}.client_metrics WHERE metric_type = 'mtd'
ORDER BY workspace_name, metric_date DESC, created_at DESC;
CREATE FUNCTION {schema}.increment_metric(
    p_workspace_name text, p_metric_name text, p_increment_by integer DEFAULT 1
) RETURNS void LANGUAGE sql AS $$
    UPDATE {schema}.client_metrics SET positive_replies_mtd = positive_replies_mtd + $3
    WHERE workspace_name = $1 AND metric_date = CURRENT_DATE
$$
"""
_REGISTER = text("""
    INSERT INTO client_registry (workspace_id, workspace_name, display_name, is_active,
        price_per_lead, monthly_kpi_target, monthly_sending_target, bison_workspace_id,
        bison_workspace_name, bison_instance, bison_api_key)
    VALUES (:number, :name, :display_name, :active, 25, :target, :sending_target, :bison_id,
        :bison_name, :instance, :api_key)
""")
_LEADS = text("""
    INSERT INTO client_leads (workspace_name, lead_email, interested, date_received)
    SELECT name, 'lead' || n || '@people.example', true,
        day::timestamp AT TIME ZONE 'America/Chicago' + interval '15 hours'
    FROM json_to_recordset(CAST(:rows AS json)) AS r (name text, day date, leads integer)
    CROSS JOIN LATERAL generate_series(1, leads) n
""")


@dataclass(frozen=True)
class OldWorkspace:
    """A client of the old registry; `name` is as it was typed there."""

    bison_id: int | None
    name: str
    target: int = 60
    sending_target: int = 30_000
    active: bool = True
    bison_name: str | None = None
    api_key: str | None = None
    display_name: str | None = None
    missing: Sequence[date] = ()
    # Days on which a failed call was stored as zeros.
    zeros: Sequence[date] = ()


def sent_on(workspace: int, day: date) -> int:
    """The emails that a workspace sent on a day; few on weekends."""
    return 20 + workspace % 5 if day.weekday() >= 5 else 900 + 7 * (workspace % 13)


def leads_on(workspace: int, day: date) -> int:
    """Its positive replies on a day."""
    return (workspace + day.toordinal()) % 3


def facts_of(workspace: int, first: date, last: date) -> dict[date, dict[str, int]]:
    """Its days as Email Bison counts them now."""
    return {
        day: {
            "sent": sent_on(workspace, day),
            "interested": leads_on(workspace, day),
            **dict.fromkeys(("replied", "bounced", "unsubscribed"), 0),
        }
        for day in days_between(first, last)
    }


def old_numbers(of: OldWorkspace, day: date) -> dict[str, object]:
    """A row as the nightly job of old wrote it: 8 days for a week, rates cut to 999.99."""
    number = of.bison_id or 0
    month = days_between(first_of_month(day), day)
    sent = sum(sent_on(number, it) for it in month)
    leads = sum(leads_on(number, it) for it in month)
    projected = _projected(leads, day)
    last_month = days_between(
        first_of_month(first_of_month(day) - timedelta(days=1)),
        first_of_month(day) - timedelta(days=1),
    )

    def last(days: int) -> int:
        return sum(leads_on(number, day - timedelta(days=it)) for it in range(days + 1))

    def progress(count: int) -> Decimal:
        if not of.target:
            return Decimal("NaN")
        return min(round(Decimal(100 * count) / of.target, 2), Decimal("999.99"))

    if day in of.zeros:
        sent = leads = projected = 0
    return {
        "emails_sent_mtd": sent,
        "projection_emails_eom": _projected(sent, day),
        "positive_replies_mtd": leads,
        "positive_replies_current_month": leads,
        "positive_replies_last_7_days": last(7),
        "positive_replies_last_14_days": last(14),
        "positive_replies_last_30_days": last(30),
        "positive_replies_last_month": sum(leads_on(number, it) for it in last_month),
        "projection_positive_replies_eom": projected,
        "mtd_leads_progress": progress(leads),
        "projection_replies_progress": progress(projected),
    }


def _projected(count: int, day: date) -> int:
    return (2 * count * days_in_month(day) + day.day) // (2 * day.day)


def build_old_system(
    connection: Connection,
    clients: Sequence[OldWorkspace],
    last: date,
    *,
    days: int = DAYS,
    schema: str = "public",
    instance: str | None = INSTANCE,
) -> None:
    """Make the old tables in that schema, with a row of each client for `days` until `last`."""
    connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    connection.exec_driver_sql(_TABLES.format(schema=schema))
    connection.execute(text(f"SET LOCAL search_path = {schema}"))
    registered = [
        {
            "number": number,
            "name": it.name,
            "display_name": it.display_name,
            "active": it.active,
            "target": it.target,
            "sending_target": it.sending_target,
            "bison_id": it.bison_id,
            "bison_name": it.bison_name,
            "instance": instance,
            "api_key": it.api_key,
        }
        for number, it in enumerate(clients, start=1)
    ]
    connection.execute(_REGISTER, registered)
    rows = list(_rows(clients, last, days))
    names = ", ".join(rows[0])
    # One statement: thousands of them take seconds.
    given = "json_populate_recordset(NULL::client_metrics, CAST(:rows AS json))"
    insert = f"INSERT INTO client_metrics ({names}) SELECT {names} FROM {given}"
    connection.execute(text(insert), {"rows": rows_as_json(rows)})
    connection.execute(_LEADS, {"rows": rows_as_json(list(_leads(clients, last, days)))})


def _rows(clients: Sequence[OldWorkspace], last: date, days: int) -> Iterator[dict[str, object]]:
    for of in clients:
        for day in days_between(last - timedelta(days=days - 1), last):
            if day not in of.missing:
                key = {"workspace_name": of.name, "metric_date": day, "metric_type": "mtd"}
                yield {**key, **old_numbers(of, day)}


def _leads(clients: Sequence[OldWorkspace], last: date, days: int) -> Iterator[dict[str, object]]:
    for of in clients:
        for day in days_between(last - timedelta(days=days - 1), last):
            if leads := leads_on(of.bison_id or 0, day):
                yield {"name": of.name, "day": day, "leads": leads}
