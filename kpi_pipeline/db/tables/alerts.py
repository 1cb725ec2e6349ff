"""Problems, and the last notice of each that receivers got."""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Integer,
    SmallInteger,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB

from kpi_pipeline.db.tables.base import metadata, moment, updated_at

# The last result of each check, for readers without Dagster: alerts, the gateway, `kpi status`.
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
    Column("clients", JSONB, nullable=False, comment="all whom the offenders name"),
    moment("checked_at"),
    Column("failing_since", DateTime(timezone=True), comment="NULL while it passes"),
    CheckConstraint("severity IN ('WARN', 'ERROR')", name="severity_is_known"),
    CheckConstraint("passed = (failing_since IS NULL)", name="fails_since"),
)

# Problems that are open or ended recently, and the last notice that each receiver got of them.
alert_state = Table(
    "alert_state",
    metadata,
    Column("cause", Text, primary_key=True),
    Column("title", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("names", JSONB, nullable=False, comment="by which it can be muted"),
    Column("clients", JSONB, nullable=False),
    moment("since"),
    moment("tell_from"),
    moment("ended_at", nullable=True),
    Column("told", JSONB, nullable=False, comment="by receiver"),
    Column("reasons", JSONB, nullable=False, server_default="[]", comment="clients and kinds"),
    Column("first_at", DateTime(timezone=True), comment="when it began, within the last day"),
    Column(
        "came_back",
        JSONB,
        nullable=False,
        server_default="[]",
        comment="when it began or became an ERROR again, within the last day",
    ),
    Column(
        "eased_at",
        DateTime(timezone=True),
        comment="since when it is a WARN after an ERROR; NULL otherwise",
    ),
    Column("muted_at", DateTime(timezone=True), comment="NULL unless all of it is muted"),
    updated_at(),
    CheckConstraint("severity IN ('WARN', 'ERROR')", name="severity_is_known"),
)

# What causes no alerts: workspace keys, names of checks, schedules, sensors and assets, and clients
# in one of them, such as `acme:plausible`.
alert_mutes = Table(
    "alert_mutes",
    metadata,
    Column("name", Text, primary_key=True),
    moment("muted_until"),
    Column("muted_at", DateTime(timezone=True), comment="NULL for mutes of older versions"),
    Column("severity", Text, comment="of what was muted; NULL if nothing was open: mutes all"),
    updated_at(),
    CheckConstraint("severity IN ('WARN', 'ERROR')", name="severity_is_known"),
)

# Receivers that did not accept their last message; named by service and host, without secrets.
alert_receivers = Table(
    "alert_receivers",
    metadata,
    Column("receiver", Text, primary_key=True),
    Column("tries", Integer, nullable=False),
    moment("failing_since"),
    moment("next_try_at"),
    updated_at(),
)

# When alerts were last evaluated: alerting watches itself where its own messages may not arrive.
alert_evaluations = Table(
    "alert_evaluations",
    metadata,
    Column("id", SmallInteger, primary_key=True, server_default="1"),
    moment("ended_at"),
    CheckConstraint("id = 1", name="one_row"),
)
