"""Indexes for what is asked of webhook_events every few minutes, and leases of backfills."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_TABLE = "webhook_events"
_HAPPENED = sa.text("coalesce(happened_at, arrived_at)")


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    for name in ("counted", "waiting", "troubled", "arrived_at", "applied_at"):
        op.drop_index(f"ix_webhook_events_{name}", _TABLE)
    _index(
        "counted",
        ["workspace", "business_date", _HAPPENED],
        "status = 'applied'",
        include=["metric", "happened_at", "arrived_at"],
    )
    _index("pending", ["workspace"], "status = 'received'")
    _index("undated", ["workspace"], "business_date IS NULL")
    _index("problems", ["status", "arrived_at"], "status IN ('set_aside', 'invalid', 'unmatched')")
    _index("applied_at", ["applied_at"], "status = 'applied'")
    _index("leads", ["business_date", "workspace"], "metric = 'interested'", include=["status"])
    _index("webhooks", ["instance", "arrived_at"], "source = 'webhook'")
    op.create_table(
        "backfill_fetch_leases",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("holder", sa.Uuid(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("workspace", name=op.f("pk_backfill_fetch_leases")),
    )


def downgrade() -> None:
    """Undo this revision."""
    op.drop_table("backfill_fetch_leases")
    for name in ("counted", "pending", "undated", "problems", "applied_at", "leads", "webhooks"):
        op.drop_index(f"ix_webhook_events_{name}", _TABLE)
    _index(
        "counted",
        ["workspace", "business_date", _HAPPENED],
        "status = 'applied'",
        include=["metric"],
    )
    _index("waiting", ["workspace"], "status = 'received'")
    _index("troubled", ["arrived_at"], "status IN ('set_aside', 'invalid')")
    op.create_index("ix_webhook_events_arrived_at", _TABLE, ["arrived_at"])
    op.create_index("ix_webhook_events_applied_at", _TABLE, ["applied_at"])


def _index(
    name: str, columns: list[str | sa.TextClause], where: str, include: list[str] | None = None
) -> None:
    op.create_index(
        f"ix_webhook_events_{name}",
        _TABLE,
        columns,
        postgresql_include=include,
        postgresql_where=sa.text(where),
    )
