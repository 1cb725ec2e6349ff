"""Sending targets and rates in each row; events count from the time at which they happened."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_TABLES = ("kpi_projections", "client_metrics")
_PERCENTAGES = (
    "sending_progress",
    "projection_sending_progress",
    "reply_rate_mtd",
    "positive_rate_mtd",
    "bounce_rate_mtd",
)

# The new columns follow from the row itself and from its month's target. All other columns stay as
# they are until the next sync, or `kpi recompute`.
_FILL = """
    UPDATE {table} r
    SET monthly_sending_target = t.target,
        sending_progress = round(r.emails_sent_mtd * 100.0 / nullif(t.target, 0), 2),
        projection_sending_progress =
            round(r.projection_emails_eom * 100.0 / nullif(t.target, 0), 2),
        reply_rate_mtd = round(r.all_replies_mtd * 100.0 / nullif(r.emails_sent_mtd, 0), 2),
        positive_rate_mtd =
            round(r.positive_replies_mtd * 100.0 / nullif(r.emails_sent_mtd, 0), 2),
        bounce_rate_mtd = round(r.bounced_mtd * 100.0 / nullif(r.emails_sent_mtd, 0), 2)
    FROM {table} s
    LEFT JOIN LATERAL (
        SELECT monthly_sending_target AS target FROM client_targets
        WHERE workspace = s.workspace AND holds_from <= s.metric_date
        ORDER BY holds_from DESC
        LIMIT 1
    ) t ON true
    WHERE s.workspace = r.workspace AND s.metric_date = r.metric_date
"""


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    for table in _TABLES:
        op.add_column(table, sa.Column("monthly_sending_target", sa.Integer(), nullable=True))
        for name in _PERCENTAGES:
            op.add_column(table, sa.Column(name, sa.Numeric(12, 2), nullable=True))
        op.execute(_FILL.format(table=table))
    _allow_sources("'sync', 'webhook', 'import', 'recompute'")
    op.drop_index("ix_webhook_events_counted", "webhook_events")
    op.create_index(
        "ix_webhook_events_counted",
        "webhook_events",
        ["workspace", "business_date", sa.text("coalesce(happened_at, arrived_at)")],
        postgresql_include=["metric"],
        postgresql_where=sa.text("status = 'applied'"),
    )
    op.create_table(
        "day_zone",
        sa.Column("id", sa.SmallInteger(), nullable=False, server_default="1"),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column(
            "since",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("id = 1", name=op.f("ck_day_zone_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_day_zone")),
    )


def downgrade() -> None:
    """Undo this revision."""
    op.drop_table("day_zone")
    op.drop_index("ix_webhook_events_counted", "webhook_events")
    op.create_index(
        "ix_webhook_events_counted",
        "webhook_events",
        ["workspace", "business_date", "arrived_at"],
        postgresql_include=["metric"],
        postgresql_where=sa.text("status IN ('received', 'applied')"),
    )
    op.execute("UPDATE client_metrics SET source = 'sync' WHERE source IN ('import', 'recompute')")
    _allow_sources("'sync', 'webhook'")
    for table in _TABLES:
        for name in ("monthly_sending_target", *_PERCENTAGES):
            op.drop_column(table, name)


def _allow_sources(sources: str) -> None:
    op.drop_constraint("ck_client_metrics_source_is_known", "client_metrics")
    op.create_check_constraint(
        op.f("ck_client_metrics_source_is_known"), "client_metrics", f"source IN ({sources})"
    )
