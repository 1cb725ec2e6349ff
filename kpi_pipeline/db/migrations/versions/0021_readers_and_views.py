"""Roles that may read, views for readers of the system before this one, and its rows."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0021"
down_revision = "0020"

# Readers find a client by its name and join by it, or by `workspace`, which PostgREST follows to
# client_metrics. Prices come from the old registry; API keys are in no column. The
# targets are those of the month of Email Bison's day now.
_CLIENT_REGISTRY = """
CREATE VIEW client_registry AS
SELECT
    coalesce((o.row ->> 'workspace_id')::bigint, c.bison_workspace_id)::integer AS workspace_id,
    c.name AS workspace_name,
    coalesce(c.display_name, c.name) AS display_name,
    c.active AS is_active,
    o.row ->> 'billing_type' AS billing_type,
    (o.row ->> 'price_per_lead')::numeric(10, 2) AS price_per_lead,
    (o.row ->> 'retainer_amount')::numeric(10, 2) AS retainer_amount,
    (o.row ->> 'payout')::numeric(10, 2) AS payout,
    t.monthly_kpi_target,
    t.monthly_sending_target,
    (o.row ->> 'daily_sending_target')::integer AS daily_sending_target,
    o.row ->> 'client_type' AS client_type,
    coalesce((o.row ->> 'kpi_dashboard_enabled')::boolean, true) AS kpi_dashboard_enabled,
    c.bison_workspace_id::integer AS bison_workspace_id,
    c.name AS bison_workspace_name,
    c.instance AS bison_instance,
    (o.row ->> 'created_at')::timestamptz AS created_at,
    c.updated_at,
    c.workspace
FROM clients c
LEFT JOIN old_clients o ON o.workspace = c.workspace
LEFT JOIN LATERAL (
    SELECT monthly_kpi_target, monthly_sending_target FROM client_targets
    WHERE workspace = c.workspace AND holds_from <= (
        now() AT TIME ZONE coalesce((SELECT zone FROM day_zone), 'UTC')
    )::date
    ORDER BY holds_from DESC LIMIT 1
) t ON true
"""

# One row for each positive reply, as readers count rows. It comes from the daily number, so that
# the count of a month is that of client_metrics; of whom it came is stored nowhere. A time without
# a zone compares with a date in the same way in every session.
_CLIENT_LEADS = """
CREATE VIEW client_leads AS
SELECT
    concat_ws(' ', m.workspace, m.metric_date, n) AS id,
    m.workspace_name,
    m.display_name AS client_name,
    true AS interested,
    m.metric_date::timestamp AS date_received,
    m.metric_date::timestamp AS interested_at,
    m.metric_date::timestamp AS created_at,
    c.bison_workspace_id::integer AS bison_workspace_id,
    m.metric_date AS lead_date,
    m.workspace
FROM client_metrics m
JOIN clients c ON c.workspace = m.workspace
CROSS JOIN LATERAL generate_series(1, m.positive_replies_today) n
WHERE m.metric_type = 'mtd'
"""

_CLIENT_LATEST_METRICS = """
CREATE VIEW client_latest_metrics AS
SELECT DISTINCT ON (workspace)
    workspace_name,
    metric_date,
    emails_sent_mtd,
    projection_emails_eom,
    positive_replies_mtd,
    positive_replies_last_7_days,
    positive_replies_last_30_days,
    projection_positive_replies_eom,
    mtd_leads_progress,
    projection_replies_progress,
    updated_at,
    workspace
FROM client_metrics
WHERE metric_type = 'mtd'
ORDER BY workspace, metric_date DESC
"""

# The columns of cron.daily_kpi_sync_history, a view of pg_cron's runs; one row is one run.
_SYNC_HISTORY = """
CREATE VIEW cron_daily_kpi_sync_history AS
SELECT
    1::bigint AS jobid,
    ('x' || left(md5(run_id), 15))::bit(60)::bigint AS runid,
    NULL::integer AS job_pid,
    current_database()::text AS database,
    'kpi_pipeline'::text AS username,
    format('sync of %s to %s', first_date, last_date) AS command,
    CASE status WHEN 'ok' THEN 'succeeded' ELSE 'failed' END AS status,
    coalesce(error, format('%s clients', n_ok)) AS return_message,
    started_at AS start_time,
    ended_at AS end_time,
    extract(epoch FROM duration) AS duration_seconds
FROM daily_kpi_sync_history
ORDER BY started_at DESC
"""

_VIEWS = {
    "client_registry": _CLIENT_REGISTRY,
    "client_leads": _CLIENT_LEADS,
    "client_latest_metrics": _CLIENT_LATEST_METRICS,
    "cron_daily_kpi_sync_history": _SYNC_HISTORY,
}


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    op.create_table(
        "old_clients",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("row", postgresql.JSONB(), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["workspace"], ["clients.workspace"], name=op.f("fk_old_clients_workspace")
        ),
        sa.PrimaryKeyConstraint("workspace", name=op.f("pk_old_clients")),
    )
    op.create_table(
        "old_metrics",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("metric_date", sa.Date(), nullable=False),
        sa.Column("metric_type", sa.Text(), nullable=False),
        sa.Column("row", postgresql.JSONB(), nullable=False),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["workspace"], ["clients.workspace"], name=op.f("fk_old_metrics_workspace")
        ),
        sa.PrimaryKeyConstraint(
            "workspace", "metric_date", "metric_type", name=op.f("pk_old_metrics")
        ),
    )
    op.create_table(
        "readers",
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("granted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("role", name=op.f("pk_readers")),
    )
    # A name that something else has stays as it is: those who made it know what it shows.
    for name, statement in _VIEWS.items():
        if not _exists(name):
            op.execute(statement)


def downgrade() -> None:
    """Undo this revision."""
    for name in _VIEWS:
        # Views of the old names in another schema depend on them, and go with them.
        if _is_ours(name):
            op.execute(f"DROP VIEW {name} CASCADE")
    op.drop_table("readers")
    op.drop_table("old_metrics")
    op.drop_table("old_clients")


def _exists(name: str) -> bool:
    found = sa.text(
        "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relname = :name AND n.nspname = current_schema())"
    )
    return bool(op.get_bind().scalar(found, {"name": name}))


def _is_ours(name: str) -> bool:
    """Whether the relation is a view with the column that all of this revision's views have."""
    column = "runid" if name == "cron_daily_kpi_sync_history" else "workspace"
    found = sa.text(
        "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relname = :name AND c.relkind = 'v' "
        "AND a.attname = :column AND n.nspname = current_schema())"
    )
    return bool(op.get_bind().scalar(found, {"name": name, "column": column}))
