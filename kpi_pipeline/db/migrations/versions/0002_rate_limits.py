"""Rate limits of Email Bison, its unknown fields, and how a sync spends its time."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    op.create_table(
        "bison_pacing",
        sa.Column("instance", sa.Text(), nullable=False),
        sa.Column("next_free_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("instance", name=op.f("pk_bison_pacing")),
    )
    op.create_table(
        "bison_call_slots",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("instance", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bison_call_slots")),
    )
    op.create_table(
        "bison_master_key_leases",
        sa.Column("instance", sa.Text(), nullable=False),
        sa.Column("holder", sa.Uuid(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("instance", name=op.f("pk_bison_master_key_leases")),
    )
    op.create_table(
        "bison_unknown_fields",
        sa.Column("instance", sa.Text(), nullable=False),
        sa.Column("call", sa.Text(), nullable=False, comment="method and path"),
        sa.Column("field", sa.Text(), nullable=False, comment="path within the answer"),
        sa.Column("answers", sa.BigInteger(), nullable=False, comment="how many held it"),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("instance", "call", "field", name=op.f("pk_bison_unknown_fields")),
    )
    op.add_column(
        "sync_log",
        sa.Column(
            "waiting_seconds",
            sa.Numeric(precision=10, scale=3),
            server_default="0",
            nullable=False,
            comment="for turns, for the master key, and between tries",
        ),
    )
    op.add_column(
        "sync_log",
        sa.Column(
            "calling_seconds",
            sa.Numeric(precision=10, scale=3),
            server_default="0",
            nullable=False,
            comment="within calls",
        ),
    )


def downgrade() -> None:
    """Undo this revision."""
    op.drop_column("sync_log", "calling_seconds")
    op.drop_column("sync_log", "waiting_seconds")
    op.drop_table("bison_unknown_fields")
    op.drop_table("bison_master_key_leases")
    op.drop_table("bison_call_slots")
    op.drop_table("bison_pacing")
