"""The KPI tables. Migrations under `migrations/` bring a database to this state."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from kpi_pipeline.columns import COUNTS, FACT_COUNTS, PERCENTAGES
from kpi_pipeline.events.event import EventSource, EventStatus

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)


def _moment(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _updated_at() -> Column[Any]:
    return Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now())


def _workspace_key() -> Column[Any]:
    return Column("workspace", Text, ForeignKey("clients.workspace"), primary_key=True)


def _one_of(column: str, values: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


# A client is (instance, Bison workspace id). `workspace` is a slug made once and never changed.
clients = Table(
    "clients",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("instance", Text, nullable=False),
    Column("bison_workspace_id", BigInteger, nullable=False),
    Column("name", Text, nullable=False, comment="Email Bison's label, trimmed"),
    Column("display_name", Text, comment="the agency's own label, where it has one"),
    Column("active", Boolean, nullable=False),
    _moment("seen_in_bison_at", nullable=True),
    _updated_at(),
    UniqueConstraint("instance", "bison_workspace_id"),
    CheckConstraint("workspace ~ '^[a-z0-9][a-z0-9_-]{0,62}$'", name="workspace_is_a_slug"),
)

# Targets have a history: a month's target is the latest that holds from that month or before.
client_targets = Table(
    "client_targets",
    metadata,
    _workspace_key(),
    Column("holds_from", Date, primary_key=True, comment="first day of a month"),
    Column("monthly_kpi_target", Integer, comment="positive replies a month"),
    Column("monthly_sending_target", Integer, comment="emails a month"),
    _updated_at(),
    CheckConstraint("extract(day from holds_from) = 1", name="holds_from_a_month"),
)

client_api_keys = Table(
    "client_api_keys",
    metadata,
    _workspace_key(),
    Column("encrypted_key", LargeBinary, nullable=False, comment="Fernet token"),
    _moment("verified_at", nullable=True),
    _updated_at(),
)

# Daily facts: what happened on one day in one workspace, as Bison told it at `as_of`.
raw_bison_stats = Table(
    "raw_bison_stats",
    metadata,
    _workspace_key(),
    Column("date", Date, primary_key=True),
    *(
        Column(
            name, Integer, CheckConstraint(f"{name} >= 0", name=f"{name}_counts"), nullable=False
        )
        for name in (*FACT_COUNTS, "total_opens", "unique_opens")
    ),
    _moment("as_of"),
    _updated_at(),
)

# Bison's sending plans know today and the days after, so a plan is kept for its own day alone.
sending_plans = Table(
    "sending_plans",
    metadata,
    _workspace_key(),
    Column("date", Date, primary_key=True, comment="the day on which the plan was today's"),
    Column("emails_scheduled_today", Integer, nullable=False),
    Column("emails_scheduled_tomorrow", Integer, nullable=False),
    _moment("as_of"),
    _updated_at(),
)


def _numbers() -> list[Column[Any]]:
    return [
        *(Column(name, BigInteger) for name in COUNTS),
        # A growth rate once overflowed a narrow NUMERIC, and took its whole row with it.
        *(Column(name, Numeric(12, 2)) for name in PERCENTAGES),
        Column("monthly_kpi_target", Integer),
    ]


kpi_projections = Table(
    "kpi_projections",
    metadata,
    _workspace_key(),
    Column("metric_date", Date, primary_key=True),
    *_numbers(),
    _moment("as_of"),
    _updated_at(),
)

# What dashboards read. The first columns keep the names of the table that this one replaces.
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
    _moment("as_of"),
    Column("source", Text, nullable=False),
    _updated_at(),
    PrimaryKeyConstraint("workspace", "metric_date", "metric_type"),
    CheckConstraint("source IN ('sync', 'webhook')", name="source_is_known"),
    Index("ix_client_metrics_metric_date", "metric_date"),
)

# What each run did for each client, readable without Dagster.
sync_log = Table(
    "sync_log",
    metadata,
    Column("run_id", Text, primary_key=True),
    _workspace_key(),
    Column("first_date", Date, nullable=False),
    Column("last_date", Date, nullable=False),
    Column("status", Text, nullable=False),
    Column("error", Text),
    Column("key_used", Text, comment="workspace or master; NULL where no call was made"),
    Column("api_calls", Integer, nullable=False),
    Column("seconds", Numeric(10, 3), nullable=False),
    _moment("finished_at"),
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
    Index("ix_sync_log_workspace", "workspace"),
    Index("ix_sync_log_finished_at", "finished_at"),
    # Every look for alerts asks which clients failed last: few lines of many.
    Index(
        "ix_sync_log_failed",
        "workspace",
        "finished_at",
        postgresql_where=text("status = 'error'"),
    ),
)

# What all processes share towards an Email Bison instance: the next call's moment, the slots of the
# calls under way, and who uses the master key.
bison_pacing = Table(
    "bison_pacing",
    metadata,
    Column("instance", Text, primary_key=True),
    _moment("next_free_at"),
    _updated_at(),
)

bison_call_slots = Table(
    "bison_call_slots",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("instance", Text, nullable=False),
    _moment("expires_at"),
)

bison_master_key_leases = Table(
    "bison_master_key_leases",
    metadata,
    Column("instance", Text, primary_key=True),
    Column("holder", Uuid, nullable=False),
    _moment("expires_at"),
)

# Members of Email Bison's answers that no document names.
bison_unknown_fields = Table(
    "bison_unknown_fields",
    metadata,
    Column("instance", Text, primary_key=True),
    Column("call", Text, primary_key=True, comment="method and path"),
    Column("field", Text, primary_key=True, comment="path within the answer"),
    Column("answers", BigInteger, nullable=False, comment="how many held it"),
    _moment("first_seen_at"),
    _moment("last_seen_at"),
)

# The inbox: every body that ever came in, and what became of it. Counted are those that stand
# 'received' or 'applied' and arrived after the facts of their day were asked for; see `overlay`.
webhook_events = Table(
    "webhook_events",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("instance", Text, nullable=False),
    Column("source", Text, nullable=False),
    _moment("arrived_at"),
    Column("body", LargeBinary, comment="as it arrived; NULL once KPI_EVENT_RETENTION_DAYS passed"),
    Column("idempotency_key", Text, nullable=False, unique=True),
    Column("event_type", Text, comment="in lower case"),
    Column("bison_workspace_id", BigInteger),
    Column("workspace", Text, ForeignKey("clients.workspace")),
    Column("metric", Text, comment="the daily count that it raises by one"),
    _moment("happened_at", nullable=True),
    Column("business_date", Date, comment="the day on which it counts; fixed once"),
    Column("status", Text, nullable=False),
    Column("reason", Text, comment="why it is not applied"),
    Column("tries", Integer, nullable=False, server_default="0"),
    _moment("next_try_at", nullable=True),
    Column("deliveries", Integer, nullable=False, server_default="1"),
    _moment("last_delivered_at", nullable=True),
    _moment("applied_at", nullable=True),
    CheckConstraint(_one_of("status", EventStatus), name="status_is_known"),
    CheckConstraint(_one_of("source", EventSource), name="source_is_known"),
    CheckConstraint(_one_of("metric", FACT_COUNTS), name="metric_is_counted"),
    CheckConstraint(
        "status NOT IN ('received', 'applied') OR (workspace IS NOT NULL AND metric IS NOT NULL)",
        name="counted_has_a_client",
    ),
    Index(
        "ix_webhook_events_counted",
        "workspace",
        "business_date",
        "arrived_at",
        postgresql_include=["metric"],
        postgresql_where=text("status IN ('received', 'applied')"),
    ),
    Index(
        "ix_webhook_events_waiting",
        "workspace",
        postgresql_where=text("status = 'received'"),
    ),
    Index(
        "ix_webhook_events_unmatched",
        "instance",
        "bison_workspace_id",
        postgresql_where=text("status = 'unmatched'"),
    ),
    Index(
        "ix_webhook_events_troubled",
        "arrived_at",
        postgresql_where=text("status IN ('set_aside', 'invalid')"),
    ),
    Index("ix_webhook_events_arrived_at", "arrived_at"),
    Index("ix_webhook_events_applied_at", "applied_at"),
)

# What each check found last, readable without Dagster: alerts, the gateway and `kpi status` do.
check_outcomes = Table(
    "check_outcomes",
    metadata,
    Column("check_name", Text, primary_key=True),
    Column("asset", Text, nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("severity", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("offenders", JSONB, nullable=False, comment="the first of them, as a list of rows"),
    Column("more", Integer, nullable=False, comment="offenders beyond those"),
    _moment("checked_at"),
    Column("failing_since", DateTime(timezone=True), comment="NULL while it passes"),
    CheckConstraint("severity IN ('WARN', 'ERROR')", name="severity_is_known"),
    CheckConstraint("passed = (failing_since IS NULL)", name="fails_since"),
)

# What is wrong, or was until just now, and what each receiver of alerts was told of it last.
alert_state = Table(
    "alert_state",
    metadata,
    Column("cause", Text, primary_key=True),
    Column("title", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("names", JSONB, nullable=False, comment="by which it can be muted"),
    Column("clients", JSONB, nullable=False),
    _moment("since"),
    _moment("tell_from"),
    _moment("ended_at", nullable=True),
    Column("told", JSONB, nullable=False, comment="by receiver"),
    _updated_at(),
    CheckConstraint("severity IN ('WARN', 'ERROR')", name="severity_is_known"),
)

# A client's key, or the name of a check, schedule, sensor or asset, that nobody is told of.
alert_mutes = Table(
    "alert_mutes",
    metadata,
    Column("name", Text, primary_key=True),
    _moment("muted_until"),
    _updated_at(),
)

# The receivers that did not take their last message. None is named by more than service and host.
alert_receivers = Table(
    "alert_receivers",
    metadata,
    Column("receiver", Text, primary_key=True),
    Column("tries", Integer, nullable=False),
    _moment("failing_since"),
    _moment("next_try_at"),
    _updated_at(),
)
