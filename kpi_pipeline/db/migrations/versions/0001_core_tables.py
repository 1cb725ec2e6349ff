"""Tables of the nightly sync."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    op.create_table(
        "clients",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("instance", sa.Text(), nullable=False),
        sa.Column("bison_workspace_id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False, comment="Email Bison's label, trimmed"),
        sa.Column(
            "display_name",
            sa.Text(),
            nullable=True,
            comment="the agency's own label, where it has one",
        ),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("seen_in_bison_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "workspace ~ '^[a-z0-9][a-z0-9_-]{0,62}$'", name=op.f("ck_clients_workspace_is_a_slug")
        ),
        sa.PrimaryKeyConstraint("workspace", name=op.f("pk_clients")),
        sa.UniqueConstraint("instance", "bison_workspace_id", name=op.f("uq_clients_instance")),
    )
    op.create_table(
        "client_api_keys",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("encrypted_key", sa.LargeBinary(), nullable=False, comment="Fernet token"),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["workspace"], ["clients.workspace"], name=op.f("fk_client_api_keys_workspace")
        ),
        sa.PrimaryKeyConstraint("workspace", name=op.f("pk_client_api_keys")),
    )
    op.create_table(
        "client_metrics",
        sa.Column("workspace_name", sa.Text(), nullable=False),
        sa.Column("metric_date", sa.Date(), nullable=False),
        sa.Column("metric_type", sa.Text(), server_default="mtd", nullable=False),
        sa.Column("emails_sent_mtd", sa.BigInteger(), nullable=True),
        sa.Column("positive_replies_mtd", sa.BigInteger(), nullable=True),
        sa.Column("all_replies_mtd", sa.BigInteger(), nullable=True),
        sa.Column("bounced_mtd", sa.BigInteger(), nullable=True),
        sa.Column("unsubscribed_mtd", sa.BigInteger(), nullable=True),
        sa.Column("emails_sent_today", sa.BigInteger(), nullable=True),
        sa.Column("positive_replies_today", sa.BigInteger(), nullable=True),
        sa.Column("emails_sent_last_7_days", sa.BigInteger(), nullable=True),
        sa.Column("emails_sent_last_14_days", sa.BigInteger(), nullable=True),
        sa.Column("emails_sent_last_30_days", sa.BigInteger(), nullable=True),
        sa.Column("positive_replies_last_7_days", sa.BigInteger(), nullable=True),
        sa.Column("positive_replies_last_14_days", sa.BigInteger(), nullable=True),
        sa.Column("positive_replies_last_30_days", sa.BigInteger(), nullable=True),
        sa.Column("positive_replies_last_month", sa.BigInteger(), nullable=True),
        sa.Column("positive_replies_current_month", sa.BigInteger(), nullable=True),
        sa.Column("projection_positive_replies_eom", sa.BigInteger(), nullable=True),
        sa.Column("projection_emails_eom", sa.BigInteger(), nullable=True),
        sa.Column("mtd_leads_progress", sa.Numeric(precision=12, scale=2), nullable=True),
        sa.Column("projection_replies_progress", sa.Numeric(precision=12, scale=2), nullable=True),
        sa.Column(
            "last_week_vs_week_before_progress", sa.Numeric(precision=12, scale=2), nullable=True
        ),
        sa.Column("monthly_kpi_target", sa.Integer(), nullable=True),
        sa.Column("emails_scheduled_today", sa.Integer(), nullable=True),
        sa.Column("emails_scheduled_tomorrow", sa.Integer(), nullable=True),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "source IN ('sync', 'webhook')", name=op.f("ck_client_metrics_source_is_known")
        ),
        sa.ForeignKeyConstraint(
            ["workspace"], ["clients.workspace"], name=op.f("fk_client_metrics_workspace")
        ),
        sa.PrimaryKeyConstraint(
            "workspace", "metric_date", "metric_type", name=op.f("pk_client_metrics")
        ),
    )
    op.create_index(
        "ix_client_metrics_metric_date", "client_metrics", ["metric_date"], unique=False
    )
    op.create_table(
        "client_targets",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("holds_from", sa.Date(), nullable=False, comment="first day of a month"),
        sa.Column(
            "monthly_kpi_target", sa.Integer(), nullable=True, comment="positive replies a month"
        ),
        sa.Column("monthly_sending_target", sa.Integer(), nullable=True, comment="emails a month"),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "extract(day from holds_from) = 1", name=op.f("ck_client_targets_holds_from_a_month")
        ),
        sa.ForeignKeyConstraint(
            ["workspace"], ["clients.workspace"], name=op.f("fk_client_targets_workspace")
        ),
        sa.PrimaryKeyConstraint("workspace", "holds_from", name=op.f("pk_client_targets")),
    )
    op.create_table(
        "kpi_projections",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("metric_date", sa.Date(), nullable=False),
        sa.Column("emails_sent_mtd", sa.BigInteger(), nullable=True),
        sa.Column("positive_replies_mtd", sa.BigInteger(), nullable=True),
        sa.Column("all_replies_mtd", sa.BigInteger(), nullable=True),
        sa.Column("bounced_mtd", sa.BigInteger(), nullable=True),
        sa.Column("unsubscribed_mtd", sa.BigInteger(), nullable=True),
        sa.Column("emails_sent_today", sa.BigInteger(), nullable=True),
        sa.Column("positive_replies_today", sa.BigInteger(), nullable=True),
        sa.Column("emails_sent_last_7_days", sa.BigInteger(), nullable=True),
        sa.Column("emails_sent_last_14_days", sa.BigInteger(), nullable=True),
        sa.Column("emails_sent_last_30_days", sa.BigInteger(), nullable=True),
        sa.Column("positive_replies_last_7_days", sa.BigInteger(), nullable=True),
        sa.Column("positive_replies_last_14_days", sa.BigInteger(), nullable=True),
        sa.Column("positive_replies_last_30_days", sa.BigInteger(), nullable=True),
        sa.Column("positive_replies_last_month", sa.BigInteger(), nullable=True),
        sa.Column("positive_replies_current_month", sa.BigInteger(), nullable=True),
        sa.Column("projection_positive_replies_eom", sa.BigInteger(), nullable=True),
        sa.Column("projection_emails_eom", sa.BigInteger(), nullable=True),
        sa.Column("mtd_leads_progress", sa.Numeric(precision=12, scale=2), nullable=True),
        sa.Column("projection_replies_progress", sa.Numeric(precision=12, scale=2), nullable=True),
        sa.Column(
            "last_week_vs_week_before_progress", sa.Numeric(precision=12, scale=2), nullable=True
        ),
        sa.Column("monthly_kpi_target", sa.Integer(), nullable=True),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["workspace"], ["clients.workspace"], name=op.f("fk_kpi_projections_workspace")
        ),
        sa.PrimaryKeyConstraint("workspace", "metric_date", name=op.f("pk_kpi_projections")),
    )
    op.create_table(
        "raw_bison_stats",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("sent", sa.Integer(), nullable=False),
        sa.Column("replied", sa.Integer(), nullable=False),
        sa.Column("interested", sa.Integer(), nullable=False),
        sa.Column("bounced", sa.Integer(), nullable=False),
        sa.Column("unsubscribed", sa.Integer(), nullable=False),
        sa.Column("total_opens", sa.Integer(), nullable=False),
        sa.Column("unique_opens", sa.Integer(), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("sent >= 0", name=op.f("ck_raw_bison_stats_sent_counts")),
        sa.CheckConstraint("replied >= 0", name=op.f("ck_raw_bison_stats_replied_counts")),
        sa.CheckConstraint("interested >= 0", name=op.f("ck_raw_bison_stats_interested_counts")),
        sa.CheckConstraint("bounced >= 0", name=op.f("ck_raw_bison_stats_bounced_counts")),
        sa.CheckConstraint(
            "unsubscribed >= 0", name=op.f("ck_raw_bison_stats_unsubscribed_counts")
        ),
        sa.CheckConstraint("total_opens >= 0", name=op.f("ck_raw_bison_stats_total_opens_counts")),
        sa.CheckConstraint(
            "unique_opens >= 0", name=op.f("ck_raw_bison_stats_unique_opens_counts")
        ),
        sa.ForeignKeyConstraint(
            ["workspace"], ["clients.workspace"], name=op.f("fk_raw_bison_stats_workspace")
        ),
        sa.PrimaryKeyConstraint("workspace", "date", name=op.f("pk_raw_bison_stats")),
    )
    op.create_table(
        "sending_plans",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column(
            "date", sa.Date(), nullable=False, comment="the day on which the plan was today's"
        ),
        sa.Column("emails_scheduled_today", sa.Integer(), nullable=False),
        sa.Column("emails_scheduled_tomorrow", sa.Integer(), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["workspace"], ["clients.workspace"], name=op.f("fk_sending_plans_workspace")
        ),
        sa.PrimaryKeyConstraint("workspace", "date", name=op.f("pk_sending_plans")),
    )
    op.create_table(
        "sync_log",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("first_date", sa.Date(), nullable=False),
        sa.Column("last_date", sa.Date(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column(
            "key_used",
            sa.Text(),
            nullable=True,
            comment="workspace or master; NULL where no call was made",
        ),
        sa.Column("api_calls", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Numeric(precision=10, scale=3), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("status IN ('ok', 'error')", name=op.f("ck_sync_log_status_is_known")),
        sa.ForeignKeyConstraint(
            ["workspace"], ["clients.workspace"], name=op.f("fk_sync_log_workspace")
        ),
        sa.PrimaryKeyConstraint("run_id", "workspace", name=op.f("pk_sync_log")),
    )
    op.create_index("ix_sync_log_workspace", "sync_log", ["workspace"], unique=False)


def downgrade() -> None:
    """Undo this revision."""
    op.drop_index("ix_sync_log_workspace", table_name="sync_log")
    op.drop_table("sync_log")
    op.drop_table("sending_plans")
    op.drop_table("raw_bison_stats")
    op.drop_table("kpi_projections")
    op.drop_table("client_targets")
    op.drop_index("ix_client_metrics_metric_date", table_name="client_metrics")
    op.drop_table("client_metrics")
    op.drop_table("client_api_keys")
    op.drop_table("clients")
