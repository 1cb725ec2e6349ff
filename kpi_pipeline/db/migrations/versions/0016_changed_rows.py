"""Changed rows of client_metrics, until Dagster's page shows them."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

# What Dagster's page shows of a row, apart from as_of: each sync renews that in every row.
_SHOWN = (
    "display_name",
    "emails_sent_today",
    "positive_replies_today",
    "emails_sent_mtd",
    "positive_replies_mtd",
    "projection_positive_replies_eom",
    "monthly_kpi_target",
    "mtd_leads_progress",
    "projection_replies_progress",
    "positive_replies_last_7_days",
    "positive_replies_last_14_days",
    "positive_replies_last_30_days",
)

# It runs with its owner's rights, as a role that may write client_metrics alone may not write this
# table. The fixed search_path keeps that role from deciding what a name in it means.
_FUNCTION = """
CREATE FUNCTION note_changed_row() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO {schema}.changed_rows (workspace, metric_date, changed_at)
    VALUES (NEW.workspace, NEW.metric_date, clock_timestamp())
    ON CONFLICT (workspace, metric_date) DO UPDATE SET changed_at = excluded.changed_at;
    RETURN NULL;
END $$
"""

_UPDATED = """
CREATE TRIGGER note_changed_row AFTER UPDATE ON client_metrics FOR EACH ROW
WHEN (NEW.metric_type = 'mtd' AND ({old}) IS DISTINCT FROM ({new}))
EXECUTE FUNCTION note_changed_row()
"""

# A sync reports the rows of its own dates. Of those that a backfill inserts, each would be an entry
# in vain. Beyond its dates, a sync inserts today's row alone.
_INSERTED = """
CREATE TRIGGER note_new_row AFTER INSERT ON client_metrics FOR EACH ROW
WHEN (NEW.metric_type = 'mtd'
    AND (NEW.source <> 'sync' OR NEW.metric_date >= CURRENT_DATE - 1))
EXECUTE FUNCTION note_changed_row()
"""


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    op.create_table(
        "changed_rows",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("metric_date", sa.Date(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "checked_at",
            sa.DateTime(timezone=True),
            comment="when it was last compared with Dagster's page, and reported if they differed",
        ),
        sa.ForeignKeyConstraint(
            ["workspace"], ["clients.workspace"], name=op.f("fk_changed_rows_workspace")
        ),
        sa.PrimaryKeyConstraint("workspace", "metric_date", name=op.f("pk_changed_rows")),
    )
    schema = op.get_bind().scalar(sa.text("SELECT quote_ident(current_schema())"))
    op.execute(_FUNCTION.format(schema=schema))
    old, new = (", ".join(f"{row}.{name}" for name in _SHOWN) for row in ("OLD", "NEW"))
    op.execute(_UPDATED.format(old=old, new=new))
    op.execute(_INSERTED)


def downgrade() -> None:
    """Undo this revision."""
    op.execute("DROP TRIGGER note_new_row ON client_metrics")
    op.execute("DROP TRIGGER note_changed_row ON client_metrics")
    op.execute("DROP FUNCTION note_changed_row()")
    op.drop_table("changed_rows")
