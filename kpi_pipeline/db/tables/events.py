"""The webhook inbox."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)

from kpi_pipeline.db.tables.base import metadata, moment, one_of
from kpi_pipeline.domain.columns import FACT_COUNTS
from kpi_pipeline.domain.events.event import EventSource, EventStatus

# Every body that arrived, with its status. Those 'applied' that happened after the facts of their
# day were asked for are counted on top of the facts; see `overlay`.
webhook_events = Table(
    "webhook_events",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("instance", Text, nullable=False),
    Column("source", Text, nullable=False),
    moment("arrived_at"),
    Column("body", LargeBinary, comment="as it arrived; NULL once KPI_EVENT_RETENTION_DAYS passed"),
    Column("idempotency_key", Text, nullable=False, unique=True),
    Column("event_type", Text, comment="in lower case"),
    Column("bison_workspace_id", BigInteger),
    Column("workspace", Text, ForeignKey("clients.workspace")),
    Column("metric", Text, comment="the daily count that it raises by one"),
    moment("happened_at", nullable=True),
    Column("business_date", Date, comment="the day on which it counts; fixed once"),
    Column("status", Text, nullable=False),
    Column("reason", Text, comment="why it is not applied"),
    Column("tries", Integer, nullable=False, server_default="0"),
    moment("next_try_at", nullable=True),
    Column("deliveries", Integer, nullable=False, server_default="1"),
    moment("last_delivered_at", nullable=True),
    moment("applied_at", nullable=True),
    CheckConstraint(one_of("status", EventStatus), name="status_is_known"),
    CheckConstraint(one_of("source", EventSource), name="source_is_known"),
    CheckConstraint(one_of("metric", FACT_COUNTS), name="metric_is_counted"),
    CheckConstraint(
        "status NOT IN ('received', 'applied') OR (workspace IS NOT NULL AND metric IS NOT NULL)",
        name="counted_has_a_client",
    ),
    # Of the events of a day, only those after its facts are read, and none of their wide rows.
    Index(
        "ix_webhook_events_counted",
        "workspace",
        "business_date",
        text("coalesce(happened_at, arrived_at)"),
        postgresql_include=["metric", "happened_at", "arrived_at"],
        postgresql_where=text("status = 'applied'"),
    ),
    # The sensor asks for these every few seconds.
    Index(
        "ix_webhook_events_pending",
        "workspace",
        postgresql_where=text("status = 'received'"),
    ),
    Index(
        "ix_webhook_events_undated",
        "workspace",
        postgresql_where=text("business_date IS NULL"),
    ),
    Index(
        "ix_webhook_events_unmatched",
        "instance",
        "bison_workspace_id",
        postgresql_where=text("status = 'unmatched'"),
    ),
    Index(
        "ix_webhook_events_applied_at",
        "applied_at",
        postgresql_where=text("status = 'applied'"),
    ),
    # The checks ask for these every quarter of an hour.
    Index(
        "ix_webhook_events_problems",
        "status",
        "arrived_at",
        postgresql_where=text("status IN ('set_aside', 'invalid', 'unmatched')"),
    ),
    Index(
        "ix_webhook_events_leads",
        "business_date",
        "workspace",
        postgresql_include=["status"],
        postgresql_where=text("metric = 'interested'"),
    ),
    Index(
        "ix_webhook_events_webhooks",
        "instance",
        "arrived_at",
        postgresql_where=text("source = 'webhook'"),
    ),
)
