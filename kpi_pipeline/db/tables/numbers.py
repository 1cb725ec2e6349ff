"""Daily facts, the numbers computed from them, the zone of their days, and the log of syncs."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    func,
    text,
)

from kpi_pipeline.db.tables.base import metadata, moment, updated_at, workspace_key
from kpi_pipeline.domain.columns import COUNTS, FACT_COUNTS, PERCENTAGES

# Daily facts: what happened on one day in one workspace, as Bison counted it at `as_of`.
raw_bison_stats = Table(
    "raw_bison_stats",
    metadata,
    workspace_key(),
    Column("date", Date, primary_key=True),
    *(
        Column(
            name,
            Integer,
            CheckConstraint(f"{name} >= 0", name=f"{name}_counts"),
            # Opens feed no number, and an instance may leave them out.
            nullable=name not in FACT_COUNTS,
        )
        for name in (*FACT_COUNTS, "total_opens", "unique_opens")
    ),
    moment("as_of"),
    updated_at(),
)

# Bison plans only today and later days, so a plan belongs to the day on which it was asked for.
sending_plans = Table(
    "sending_plans",
    metadata,
    workspace_key(),
    Column("date", Date, primary_key=True, comment="the day on which the plan was today's"),
    # NULL: the request failed, or the answer was not valid.
    Column("emails_scheduled_today", Integer),
    Column("emails_scheduled_tomorrow", Integer),
    moment("as_of"),
    updated_at(),
)


def _numbers() -> list[Column[Any]]:
    return [
        *(Column(name, BigInteger) for name in COUNTS),
        # A growth rate once overflowed a narrower NUMERIC, and the whole row was lost.
        *(Column(name, Numeric(12, 2)) for name in PERCENTAGES),
        Column("monthly_kpi_target", Integer),
        Column("monthly_sending_target", Integer),
    ]


kpi_projections = Table(
    "kpi_projections",
    metadata,
    workspace_key(),
    Column("metric_date", Date, primary_key=True),
    *_numbers(),
    moment("as_of"),
    updated_at(),
)

# The table that dashboards read; its first columns have the names of the table that it replaces.
client_metrics = Table(
    "client_metrics",
    metadata,
    Column("workspace_name", Text, nullable=False),
    Column("metric_date", Date, nullable=False),
    Column("metric_type", Text, nullable=False, server_default="mtd"),
    *_numbers(),
    Column("emails_scheduled_today", Integer),
    Column("emails_scheduled_tomorrow", Integer),
    Column("workspace", Text, ForeignKey("clients.workspace"), nullable=False),
    Column("display_name", Text, nullable=False),
    moment("as_of"),
    Column("source", Text, nullable=False),
    updated_at(),
    PrimaryKeyConstraint("workspace", "metric_date", "metric_type"),
    CheckConstraint(
        "source IN ('sync', 'webhook', 'import', 'edit', 'recompute')", name="source_is_known"
    ),
    Index("ix_client_metrics_metric_date", "metric_date"),
)

# Rows of client_metrics of which Dagster's page may show older numbers. A trigger on client_metrics
# adds them, whatever changes a row; the sensor `report_changed_rows` deletes them.
changed_rows = Table(
    "changed_rows",
    metadata,
    workspace_key(),
    Column("metric_date", Date, primary_key=True),
    moment("changed_at"),
    Column(
        "checked_at",
        DateTime(timezone=True),
        comment="when it was last compared with Dagster's page, and reported if they differed",
    ),
)

# The time zone in which all stored dates are days: of facts, events and rows. One row at most.
day_zone = Table(
    "day_zone",
    metadata,
    Column("id", SmallInteger, primary_key=True, server_default="1"),
    Column("zone", Text, nullable=False),
    Column("since", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column(
        "measured",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="whether it was adopted from a measurement, and is in no setting",
    ),
    CheckConstraint("id = 1", name="one_row"),
)

# What each run did for each client, for readers without Dagster.
sync_log = Table(
    "sync_log",
    metadata,
    Column("run_id", Text, primary_key=True),
    workspace_key(),
    Column("first_date", Date, nullable=False),
    Column("last_date", Date, nullable=False),
    Column("status", Text, nullable=False),
    Column("error", Text),
    Column("key_used", Text, comment="workspace or master; NULL where no call was made"),
    Column("api_calls", Integer, nullable=False),
    Column("seconds", Numeric(10, 3), nullable=False),
    moment("finished_at"),
    Column(
        "waiting_seconds",
        Numeric(10, 3),
        nullable=False,
        server_default="0",
        comment="for turns, for the master key, and between tries",
    ),
    Column(
        "calling_seconds",
        Numeric(10, 3),
        nullable=False,
        server_default="0",
        comment="within calls",
    ),
    CheckConstraint("status IN ('ok', 'error')", name="status_is_known"),
    # A client's page shows its last syncs, of tens of thousands a year.
    Index("ix_sync_log_workspace", "workspace", "finished_at"),
    Index("ix_sync_log_finished_at", "finished_at"),
    # Each evaluation of alerts asks which clients failed last: few rows of many.
    Index(
        "ix_sync_log_failed",
        "workspace",
        "finished_at",
        postgresql_where=text("status = 'error'"),
    ),
)
