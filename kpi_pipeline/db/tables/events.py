"""The webhook inbox, and how far the event feed was read."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    text,
)

from kpi_pipeline.db.tables.base import metadata, moment, one_of, workspace_key
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
    Column(
        "deliveries",
        Integer,
        nullable=False,
        server_default="1",
        comment="how often it was delivered; 0 if only the feed has it",
    ),
    moment("last_delivered_at", nullable=True),
    moment("applied_at", nullable=True),
    Column("feed_uuid", Text, comment="its id in the event feed, once that was read"),
    Column(
        "recorded_at",
        DateTime(timezone=True),
        comment="when Email Bison recorded it, according to the event feed",
    ),
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
    # What the feed has and nothing delivered.
    Index(
        "ix_webhook_events_undelivered",
        "instance",
        "recorded_at",
        postgresql_where=text("deliveries = 0"),
    ),
)

# The feed of each client and type of event. Times of Email Bison's clock and of ours are not mixed:
# the feed is read from `recorded_until` on, and due some time after `tried_at`.
event_feed = Table(
    "event_feed",
    metadata,
    workspace_key(),
    Column("event_type", Text, primary_key=True),
    moment("tried_at"),
    moment("read_at", nullable=True),
    Column(
        "recorded_until",
        DateTime(timezone=True),
        comment="when Email Bison recorded the latest event that was read",
    ),
    Column("problem", Text, comment="why the last reading failed, or is not complete"),
)

# Instances that have no event feed, and when they were last asked.
event_feed_missing = Table(
    "event_feed_missing",
    metadata,
    Column("instance", Text, primary_key=True),
    moment("noted_at"),
    moment("asked_at"),
)
