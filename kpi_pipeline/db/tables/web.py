"""What the web pages store: users and their sessions, requests for runs, and edited targets."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from kpi_pipeline.db.tables.base import metadata, moment, updated_at

# People who may log in to the dashboard and to Dagster's page.
web_users = Table(
    "web_users",
    metadata,
    Column("name", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("password_hash", Text, comment="argon2id; NULL: the user comes by a proxy alone"),
    moment("created_at"),
    updated_at(),
    CheckConstraint("name ~ '^[a-z0-9][a-z0-9._@+-]{0,63}$'", name="name_is_plain"),
    CheckConstraint("role IN ('viewer', 'editor')", name="role_is_known"),
)


def _user(*, nullable: bool = False) -> Column[str]:
    key = ForeignKey("web_users.name", ondelete="CASCADE")
    return Column("user_name", Text, key, nullable=nullable)


# Tokens with which programs read the data. The token itself is stored nowhere.
web_api_tokens = Table(
    "web_api_tokens",
    metadata,
    Column("token_hash", Text, primary_key=True, comment="SHA-256, as hexadecimal digits"),
    _user(),
    Column("label", Text, nullable=False),
    moment("created_at"),
    moment("last_used_at", nullable=True),
    UniqueConstraint("user_name", "label"),
)

# Logins that have not ended. A user who is deleted, or gets another password, has none left.
web_sessions = Table(
    "web_sessions",
    metadata,
    Column("token_hash", Text, primary_key=True, comment="SHA-256, as hexadecimal digits"),
    # NULL for a password of the settings, of which `role` and `password_digest` say which one.
    _user(nullable=True),
    Column("role", Text, nullable=False),
    Column("password_digest", Text),
    moment("created_at"),
    moment("expires_at"),
    Index("ix_web_sessions_user_name", "user_name"),
    CheckConstraint("role IN ('viewer', 'editor')", name="role_is_known"),
)

# What people ask for on the dashboard; a sensor of Dagster's turns each into a run.
action_requests = Table(
    "action_requests",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("workspaces", ARRAY(Text), nullable=False),
    Column("first_date", Date, nullable=False),
    Column("last_date", Date, nullable=False),
    Column("requested_by", Text, nullable=False),
    moment("requested_at"),
    Column("status", Text, nullable=False, server_default="waiting"),
    Column("run_id", Text),
    Column("message", Text, comment="what came of it, for people"),
    moment("ended_at", nullable=True),
    CheckConstraint("kind IN ('refresh', 'fill')", name="kind_is_known"),
    CheckConstraint(
        "status IN ('waiting', 'started', 'succeeded', 'failed', 'canceled')",
        name="status_is_known",
    ),
    CheckConstraint("first_date <= last_date", name="dates_in_order"),
    Index(
        "ix_action_requests_open",
        "id",
        postgresql_where=text("status IN ('waiting', 'started')"),
    ),
)

# Who changed a month's targets, and when. Each of `before` and `after` holds both targets, or is
# NULL where the month has no targets of its own.
target_changes = Table(
    "target_changes",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("workspace", Text, ForeignKey("clients.workspace"), nullable=False),
    Column("holds_from", Date, nullable=False, comment="first day of a month"),
    Column("before", JSONB(none_as_null=True)),
    Column("after", JSONB(none_as_null=True)),
    Column("changed_by", Text, nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("undoes", BigInteger, ForeignKey("target_changes.id"), comment="the change taken back"),
    Index("ix_target_changes_workspace", "workspace", "id"),
)
