"""Clients: identity, labels, targets and API keys."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    Integer,
    LargeBinary,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
)

from kpi_pipeline.db.tables.base import metadata, moment, updated_at, workspace_key

# A client is (instance, Bison workspace id). `workspace` is a slug that never changes.
clients = Table(
    "clients",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("instance", Text, nullable=False),
    Column("bison_workspace_id", BigInteger, nullable=False),
    Column("name", Text, nullable=False, comment="Email Bison's label, trimmed"),
    Column("display_name", Text, comment="the agency's own label, where it has one"),
    Column("active", Boolean, nullable=False),
    moment("seen_in_bison_at", nullable=True),
    updated_at(),
    Column(
        "max_sending_shortfall",
        Numeric(5, 2),
        comment="percent of the sending target; NULL: the default of the check sending_pace",
    ),
    Column(
        "min_reply_rate",
        Numeric(5, 2),
        comment="percent of the emails; NULL: the default of the check reply_rate",
    ),
    UniqueConstraint("instance", "bison_workspace_id"),
    CheckConstraint("workspace ~ '^[a-z0-9][a-z0-9_-]{0,62}$'", name="workspace_is_a_slug"),
    CheckConstraint(
        "max_sending_shortfall BETWEEN 0 AND 100", name="max_sending_shortfall_is_a_percentage"
    ),
    CheckConstraint("min_reply_rate BETWEEN 0 AND 100", name="min_reply_rate_is_a_percentage"),
)

# Targets have a history: a month's target is the latest that holds from that month or before.
client_targets = Table(
    "client_targets",
    metadata,
    workspace_key(),
    Column("holds_from", Date, primary_key=True, comment="first day of a month"),
    Column("monthly_kpi_target", Integer, comment="positive replies a month"),
    Column("monthly_sending_target", Integer, comment="emails a month"),
    updated_at(),
    CheckConstraint("extract(day from holds_from) = 1", name="holds_from_a_month"),
)

client_api_keys = Table(
    "client_api_keys",
    metadata,
    workspace_key(),
    Column("encrypted_key", LargeBinary, nullable=False, comment="Fernet token"),
    moment("verified_at", nullable=True),
    Column(
        "numbers",
        ARRAY(Text),
        nullable=False,
        server_default="{}",
        comment="of all keys that were stored for the client, the current one last",
    ),
    updated_at(),
)
