"""The webhook inbox, and the old counter function, which stores events in it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

# Callers of the old function, which incremented a stored number, call this one. It stores events,
# from which the numbers are computed; without a date, as the business time zone is not known here.
INCREMENT_METRIC = """
CREATE FUNCTION increment_metric(workspace_name text, metric_name text, by integer)
RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    wanted text := lower(btrim(increment_metric.workspace_name));
    counted text := CASE regexp_replace(
            lower(btrim(increment_metric.metric_name)), '_(mtd|today|current_month)$', '')
        WHEN 'positive_replies' THEN 'interested'
        WHEN 'interested' THEN 'interested'
        WHEN 'emails_sent' THEN 'sent'
        WHEN 'all_replies' THEN 'replied'
        WHEN 'bounced' THEN 'bounced'
        WHEN 'unsubscribed' THEN 'unsubscribed'
    END;
    found clients[];
BEGIN
    IF counted IS NULL THEN
        RAISE EXCEPTION 'There is no metric %: use positive_replies, emails_sent, all_replies, '
            'bounced or unsubscribed.', coalesce(increment_metric.metric_name, 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF increment_metric.by IS NULL OR increment_metric.by NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'A metric is raised by 1 to 1000, not by %.',
            coalesce(increment_metric.by::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- A key as it is written names its client, though others may be called so.
    SELECT array_agg(c) INTO found FROM clients c
        WHERE active AND workspace = btrim(increment_metric.workspace_name);
    IF found IS NULL THEN
        SELECT array_agg(c) INTO found FROM clients c
            WHERE active AND (workspace = wanted OR lower(btrim(name)) = wanted);
    END IF;
    IF found IS NULL THEN
        RAISE EXCEPTION 'There is no active client %: use the name or the key that '
            '`kpi clients list` shows.', coalesce(increment_metric.workspace_name, 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF cardinality(found) > 1 THEN
        RAISE EXCEPTION 'Several active clients are called %: use the key that '
            '`kpi clients list` shows.', increment_metric.workspace_name
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO webhook_events (
        instance, source, arrived_at, idempotency_key, event_type, bison_workspace_id, workspace,
        metric, status)
    SELECT found[1].instance, 'function', clock_timestamp(), 'function ' || gen_random_uuid(),
        'increment_metric', found[1].bison_workspace_id, found[1].workspace, counted, 'received'
    FROM generate_series(1, increment_metric.by);
END $$
"""


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    op.create_table(
        "webhook_events",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("instance", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("arrived_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "body",
            sa.LargeBinary(),
            nullable=True,
            comment="as it arrived; NULL once KPI_EVENT_RETENTION_DAYS passed",
        ),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=True, comment="in lower case"),
        sa.Column("bison_workspace_id", sa.BigInteger(), nullable=True),
        sa.Column("workspace", sa.Text(), nullable=True),
        sa.Column(
            "metric", sa.Text(), nullable=True, comment="the daily count that it raises by one"
        ),
        sa.Column("happened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "business_date",
            sa.Date(),
            nullable=True,
            comment="the day on which it counts; fixed once",
        ),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True, comment="why it is not applied"),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deliveries", sa.Integer(), server_default="1", nullable=False),
        sa.Column("last_delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('received', 'applied', 'ignored', 'unmatched', 'invalid', 'set_aside')",
            name=op.f("ck_webhook_events_status_is_known"),
        ),
        sa.CheckConstraint(
            "source IN ('webhook', 'file', 'function')",
            name=op.f("ck_webhook_events_source_is_known"),
        ),
        sa.CheckConstraint(
            "metric IN ('sent', 'replied', 'interested', 'bounced', 'unsubscribed')",
            name=op.f("ck_webhook_events_metric_is_counted"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('received', 'applied') "
            "OR (workspace IS NOT NULL AND metric IS NOT NULL)",
            name=op.f("ck_webhook_events_counted_has_a_client"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace"], ["clients.workspace"], name=op.f("fk_webhook_events_workspace")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_events")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_webhook_events_idempotency_key")),
    )
    op.create_index(
        "ix_webhook_events_counted",
        "webhook_events",
        ["workspace", "business_date", "arrived_at"],
        postgresql_include=["metric"],
        postgresql_where=sa.text("status IN ('received', 'applied')"),
    )
    op.create_index(
        "ix_webhook_events_waiting",
        "webhook_events",
        ["workspace"],
        postgresql_where=sa.text("status = 'received'"),
    )
    op.create_index(
        "ix_webhook_events_unmatched",
        "webhook_events",
        ["instance", "bison_workspace_id"],
        postgresql_where=sa.text("status = 'unmatched'"),
    )
    op.create_index(
        "ix_webhook_events_troubled",
        "webhook_events",
        ["arrived_at"],
        postgresql_where=sa.text("status IN ('set_aside', 'invalid')"),
    )
    op.create_index("ix_webhook_events_arrived_at", "webhook_events", ["arrived_at"])
    op.create_index("ix_webhook_events_applied_at", "webhook_events", ["applied_at"])
    op.execute(INCREMENT_METRIC)
    # Anyone with a public key could once call the counter: only whom the owner names may.
    op.execute("REVOKE EXECUTE ON FUNCTION increment_metric(text, text, integer) FROM PUBLIC")


def downgrade() -> None:
    """Undo this revision."""
    op.execute("DROP FUNCTION increment_metric(text, text, integer)")
    op.drop_table("webhook_events")
