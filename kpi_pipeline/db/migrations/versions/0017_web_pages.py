"""Users and sessions of the web pages, requests for runs, edited targets, and notifications."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"

_ROLES = "role IN ('viewer', 'editor')"


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    _create_users()
    _create_actions()
    _create_notifications()
    _index_syncs("workspace", "finished_at")
    _allow_sources("'sync', 'webhook', 'import', 'edit', 'recompute'")


def downgrade() -> None:
    """Undo this revision."""
    op.execute("UPDATE client_metrics SET source = 'import' WHERE source = 'edit'")
    _allow_sources("'sync', 'webhook', 'import', 'recompute'")
    _index_syncs("workspace")
    for table, event in _NOTIFYING_ROWS:
        op.execute(f"DROP TRIGGER notify_{event} ON {table}")
    for table, _ in _NOTIFYING_TABLES:
        op.execute(f"DROP TRIGGER notify_change ON {table}")
    op.execute("DROP FUNCTION notify_workspaces()")
    op.execute("DROP FUNCTION notify_subject()")
    for table in (
        "target_changes",
        "action_requests",
        "web_sessions",
        "web_api_tokens",
        "web_users",
    ):
        op.drop_table(table)


def _allow_sources(sources: str) -> None:
    name = op.f("ck_client_metrics_source_is_known")
    op.drop_constraint(name, "client_metrics", type_="check")
    op.create_check_constraint(name, "client_metrics", f"source IN ({sources})")


def _index_syncs(*columns: str) -> None:
    op.drop_index("ix_sync_log_workspace", table_name="sync_log")
    op.create_index("ix_sync_log_workspace", "sync_log", [*columns])


def _moment(name: str, *, nullable: bool = False) -> sa.Column:  # type: ignore[type-arg]
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _create_users() -> None:
    op.create_table(
        "web_users",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column(
            "password_hash", sa.Text(), comment="argon2id; NULL: the user comes by a proxy alone"
        ),
        _moment("created_at"),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("now()"),
        ),
        sa.CheckConstraint(
            "name ~ '^[a-z0-9][a-z0-9._@+-]{0,63}$'", name=op.f("ck_web_users_name_is_plain")
        ),
        sa.CheckConstraint(_ROLES, name=op.f("ck_web_users_role_is_known")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_web_users")),
    )
    op.create_table(
        "web_api_tokens",
        sa.Column(
            "token_hash", sa.Text(), nullable=False, comment="SHA-256, as hexadecimal digits"
        ),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        _moment("created_at"),
        _moment("last_used_at", nullable=True),
        sa.ForeignKeyConstraint(
            ["user_name"],
            ["web_users.name"],
            name=op.f("fk_web_api_tokens_user_name"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_web_api_tokens")),
        sa.UniqueConstraint("user_name", "label", name=op.f("uq_web_api_tokens_user_name")),
    )
    op.create_table(
        "web_sessions",
        sa.Column(
            "token_hash", sa.Text(), nullable=False, comment="SHA-256, as hexadecimal digits"
        ),
        sa.Column("user_name", sa.Text()),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("password_digest", sa.Text()),
        _moment("created_at"),
        _moment("expires_at"),
        sa.CheckConstraint(_ROLES, name=op.f("ck_web_sessions_role_is_known")),
        sa.ForeignKeyConstraint(
            ["user_name"],
            ["web_users.name"],
            name=op.f("fk_web_sessions_user_name"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_web_sessions")),
    )
    op.create_index("ix_web_sessions_user_name", "web_sessions", ["user_name"])


def _create_actions() -> None:
    op.create_table(
        "action_requests",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("workspaces", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("first_date", sa.Date(), nullable=False),
        sa.Column("last_date", sa.Date(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        _moment("requested_at"),
        sa.Column("status", sa.Text(), nullable=False, server_default="waiting"),
        sa.Column("run_id", sa.Text()),
        sa.Column("message", sa.Text(), comment="what came of it, for people"),
        _moment("ended_at", nullable=True),
        sa.CheckConstraint(
            "kind IN ('refresh', 'fill')", name=op.f("ck_action_requests_kind_is_known")
        ),
        sa.CheckConstraint(
            "status IN ('waiting', 'started', 'succeeded', 'failed', 'canceled')",
            name=op.f("ck_action_requests_status_is_known"),
        ),
        sa.CheckConstraint(
            "first_date <= last_date", name=op.f("ck_action_requests_dates_in_order")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_action_requests")),
    )
    op.create_index(
        "ix_action_requests_open",
        "action_requests",
        ["id"],
        postgresql_where=sa.text("status IN ('waiting', 'started')"),
    )
    op.create_table(
        "target_changes",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("holds_from", sa.Date(), nullable=False, comment="first day of a month"),
        sa.Column("before", postgresql.JSONB()),
        sa.Column("after", postgresql.JSONB()),
        sa.Column("changed_by", sa.Text(), nullable=False),
        sa.Column(
            "changed_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.text("now()"),
        ),
        sa.Column("undoes", sa.BigInteger(), comment="the change taken back"),
        sa.ForeignKeyConstraint(
            ["workspace"], ["clients.workspace"], name=op.f("fk_target_changes_workspace")
        ),
        sa.ForeignKeyConstraint(
            ["undoes"], ["target_changes.id"], name=op.f("fk_target_changes_undoes")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_target_changes")),
    )
    op.create_index("ix_target_changes_workspace", "target_changes", ["workspace", "id"])


# One notification for each client and transaction, however many rows a statement changes.
_NOTIFY_WORKSPACES = """
CREATE FUNCTION notify_workspaces() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_notify('kpi_changes', 'rows ' || workspace)
    FROM (SELECT DISTINCT workspace FROM changed) AS named;
    RETURN NULL;
END $$
"""

_NOTIFY_SUBJECT = """
CREATE FUNCTION notify_subject() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_notify('kpi_changes', TG_ARGV[0]);
    RETURN NULL;
END $$
"""

_NOTIFYING_ROWS = [("client_metrics", event) for event in ("insert", "update", "delete")]
_NOTIFYING_TABLES = [
    ("clients", "clients"),
    ("check_outcomes", "checks"),
    ("action_requests", "requests"),
]


def _create_notifications() -> None:
    op.execute(_NOTIFY_WORKSPACES)
    op.execute(_NOTIFY_SUBJECT)
    for table, event in _NOTIFYING_ROWS:
        rows = "OLD" if event == "delete" else "NEW"
        op.execute(
            f"CREATE TRIGGER notify_{event} AFTER {event.upper()} ON {table} "
            f"REFERENCING {rows} TABLE AS changed "
            "FOR EACH STATEMENT EXECUTE FUNCTION notify_workspaces()"
        )
    for table, subject in _NOTIFYING_TABLES:
        op.execute(
            f"CREATE TRIGGER notify_change AFTER INSERT OR UPDATE OR DELETE ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION notify_subject('{subject}')"
        )
