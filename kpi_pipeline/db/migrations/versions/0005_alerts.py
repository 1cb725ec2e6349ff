"""Alerts: problems and notices, mutes, and failing receivers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    op.create_table(
        "alert_state",
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("names", postgresql.JSONB(), nullable=False, comment="by which it can be muted"),
        sa.Column("clients", postgresql.JSONB(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tell_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("told", postgresql.JSONB(), nullable=False, comment="by receiver"),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "severity IN ('WARN', 'ERROR')", name=op.f("ck_alert_state_severity_is_known")
        ),
        sa.PrimaryKeyConstraint("cause", name=op.f("pk_alert_state")),
    )
    op.create_table(
        "alert_mutes",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("muted_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_alert_mutes")),
    )
    op.create_table(
        "alert_receivers",
        sa.Column("receiver", sa.Text(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("receiver", name=op.f("pk_alert_receivers")),
    )
    op.create_index(
        "ix_sync_log_failed",
        "sync_log",
        ["workspace", "finished_at"],
        postgresql_where=sa.text("status = 'error'"),
    )


def downgrade() -> None:
    """Undo this revision."""
    op.drop_index("ix_sync_log_failed", table_name="sync_log")
    op.drop_table("alert_receivers")
    op.drop_table("alert_mutes")
    op.drop_table("alert_state")
