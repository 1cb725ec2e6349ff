"""The KPI tables. Migrations under `migrations/` bring a database to this state."""

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
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
)

from kpi_pipeline.columns import COUNTS, FACT_COUNTS, PERCENTAGES

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
