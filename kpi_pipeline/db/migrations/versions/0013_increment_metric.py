"""The status of test events, and the function increment_metric as its callers call it."""

from importlib import import_module

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_STATUSES = "'received', 'applied', 'ignored', 'unmatched', 'invalid', 'set_aside'"

_BEFORE = "increment_metric(text, text, integer)"
_NOW = "increment_metric(text, text, integer, text)"

_GRANTEES = sa.text("""
    SELECT quote_ident(r.rolname)
    FROM pg_proc p
    CROSS JOIN LATERAL aclexplode(p.proacl) a
    JOIN pg_roles r ON r.oid = a.grantee
    WHERE p.oid = to_regprocedure(:function)
      AND a.privilege_type = 'EXECUTE' AND a.grantee <> p.proowner
""")

# Callers need the right to execute it and no other, so it runs with the rights of its owner. Then
# nothing of the caller's may decide what a name in it means: its search_path is fixed, and what is
# not PostgreSQL's own is named with its schema.
#
# It stores events, from which the numbers are computed; without a date, as the zone of the days is
# not known here. With a key, the event of a repeated call has the idempotency key of one that is
# stored already.
_FUNCTION = """
CREATE FUNCTION increment_metric(
    p_workspace_name text,
    p_metric_name text,
    p_increment_by integer DEFAULT 1,
    p_idempotency_key text DEFAULT NULL
)
RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_wanted text := lower(btrim(p_workspace_name));
    v_metric text := CASE regexp_replace(
            lower(btrim(p_metric_name)), '_(mtd|today|current_month)$', '')
        WHEN 'interested' THEN 'interested'
        WHEN 'positive_replies' THEN 'interested'
        WHEN 'emails_sent' THEN 'sent'
        WHEN 'sent' THEN 'sent'
        WHEN 'replies' THEN 'replied'
        WHEN 'all_replies' THEN 'replied'
        WHEN 'replied' THEN 'replied'
        WHEN 'bounces' THEN 'bounced'
        WHEN 'bounced' THEN 'bounced'
        WHEN 'unsubscribes' THEN 'unsubscribed'
        WHEN 'unsubscribed' THEN 'unsubscribed'
    END;
    v_found text[];
    v_call text;
BEGIN
    IF v_metric IS NULL THEN
        RAISE EXCEPTION 'There is no metric %: use interested_mtd, replies_mtd, bounces_mtd, '
            'unsubscribes_mtd or emails_sent_mtd.', coalesce(p_metric_name, 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF p_increment_by IS NULL OR p_increment_by NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'A metric is raised by 1 to 1000, not by %.',
            coalesce(p_increment_by::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- A key as it is written names its client, though others may be called so.
    SELECT array_agg(c.workspace) INTO v_found FROM {schema}.clients c
        WHERE c.active AND c.workspace = btrim(p_workspace_name);
    IF v_found IS NULL THEN
        SELECT array_agg(c.workspace) INTO v_found FROM {schema}.clients c
            WHERE c.active AND (c.workspace = v_wanted OR lower(btrim(c.name)) = v_wanted);
    END IF;
    IF v_found IS NULL THEN
        RAISE EXCEPTION 'There is no active client %: use the name or the key that '
            '`kpi clients list` shows.', coalesce(p_workspace_name, 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF cardinality(v_found) > 1 THEN
        RAISE EXCEPTION 'Several active clients are called %: use the key that '
            '`kpi clients list` shows.', p_workspace_name
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- A key may have any length, and an index entry may not.
    v_call := concat_ws(' ', 'function', v_found[1], v_metric, p_increment_by,
        'sha256=' || encode(sha256(convert_to(nullif(btrim(p_idempotency_key), ''), 'UTF8')), 'hex')
    );
    INSERT INTO {schema}.webhook_events (
        instance, source, arrived_at, idempotency_key, event_type, bison_workspace_id, workspace,
        metric, status)
    SELECT c.instance, 'function', clock_timestamp(),
        CASE WHEN nullif(btrim(p_idempotency_key), '') IS NULL
            THEN 'function ' || gen_random_uuid() ELSE v_call || ' ' || n END,
        'increment_metric', c.bison_workspace_id, c.workspace, v_metric, 'received'
    FROM {schema}.clients c
    CROSS JOIN generate_series(1, p_increment_by) n
    WHERE c.workspace = v_found[1]
    ON CONFLICT (idempotency_key) DO NOTHING;
END $$
"""


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    _allow_statuses(_STATUSES.replace("'ignored'", "'ignored', 'test'"))
    schema = op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())"))
    _replace(_BEFORE, _NOW, _FUNCTION.format(schema=schema))


def downgrade() -> None:
    """Undo this revision."""
    inbox = import_module("kpi_pipeline.db.migrations.versions.0003_webhook_inbox")
    _replace(_NOW, _BEFORE, inbox.INCREMENT_METRIC)
    events = sa.table("webhook_events", sa.column("status"))
    op.execute(sa.update(events).where(events.c.status == "test").values(status="ignored"))
    _allow_statuses(_STATUSES)


def _allow_statuses(statuses: str) -> None:
    name = op.f("ck_webhook_events_status_is_known")
    op.drop_constraint(name, "webhook_events")
    op.create_check_constraint(name, "webhook_events", f"status IN ({statuses})")


def _replace(before: str, now: str, create: str) -> None:
    """Drop a function and create another, which the same roles may execute."""
    roles = op.get_bind().scalars(_GRANTEES, {"function": before}).all()
    op.execute(f"DROP FUNCTION {before}")
    op.execute(create)
    op.execute(f"REVOKE EXECUTE ON FUNCTION {now} FROM PUBLIC")
    for role in roles:
        op.execute(f"GRANT EXECUTE ON FUNCTION {now} TO {role}")
