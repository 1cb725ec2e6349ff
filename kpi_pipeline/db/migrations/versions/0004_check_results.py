"""Results of checks, and the history of syncs by run."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"

# A row of sync_log is one client's; a row of this view is one run, as in the table it replaces.
_HISTORY = """
CREATE VIEW daily_kpi_sync_history AS
SELECT
    run_id,
    min(finished_at - make_interval(secs => seconds::double precision)) AS started_at,
    max(finished_at) AS ended_at,
    max(finished_at) - min(finished_at - make_interval(secs => seconds::double precision))
        AS duration,
    CASE WHEN bool_or(status = 'error') THEN 'error' ELSE 'ok' END AS status,
    count(*) FILTER (WHERE status = 'ok') AS n_ok,
    count(*) FILTER (WHERE status = 'error') AS n_failed,
    min(first_date) AS first_date,
    max(last_date) AS last_date,
    sum(api_calls) AS api_calls,
    (array_agg(error ORDER BY finished_at, workspace) FILTER (WHERE status = 'error'))[1]
        || CASE count(*) FILTER (WHERE status = 'error')
            WHEN 1 THEN ''
            ELSE format(' (and %s more)', count(*) FILTER (WHERE status = 'error') - 1)
        END AS error
FROM sync_log
GROUP BY run_id
"""


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    op.create_table(
        "check_outcomes",
        sa.Column("check_name", sa.Text(), nullable=False),
        sa.Column("asset", sa.Text(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column(
            "offenders",
            postgresql.JSONB(),
            nullable=False,
            comment="the first of them, as a list of rows",
        ),
        sa.Column("more", sa.Integer(), nullable=False, comment="offenders beyond those"),
        sa.Column(
            "cause", sa.Text(), nullable=True, comment="what several checks may fail for together"
        ),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "failing_since",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="NULL while it passes",
        ),
        sa.CheckConstraint(
            "severity IN ('WARN', 'ERROR')", name=op.f("ck_check_outcomes_severity_is_known")
        ),
        sa.CheckConstraint(
            "passed = (failing_since IS NULL)", name=op.f("ck_check_outcomes_fails_since")
        ),
        sa.PrimaryKeyConstraint("check_name", name=op.f("pk_check_outcomes")),
    )
    op.create_index("ix_sync_log_finished_at", "sync_log", ["finished_at"])
    op.execute(_HISTORY)


def downgrade() -> None:
    """Undo this revision."""
    op.execute("DROP VIEW daily_kpi_sync_history")
    op.drop_index("ix_sync_log_finished_at", table_name="sync_log")
    op.drop_table("check_outcomes")
