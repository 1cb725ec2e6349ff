"""What was measured of how Email Bison counts, and whether the zone of the days came from it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    op.create_table(
        "bison_findings",
        sa.Column("instance", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "possible",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="what may be right, according to the last comparison",
        ),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), comment="the last answer that was decided"),
        sa.Column("before", sa.Text(), comment="the answer before the last change"),
        sa.Column("changed_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "subject IN ('day_zone', 'leads_count_by', 'quiet_days', 'revised_age')",
            name=op.f("ck_bison_findings_subject_is_known"),
        ),
        sa.ForeignKeyConstraint(
            ["workspace"], ["clients.workspace"], name=op.f("fk_bison_findings_workspace")
        ),
        sa.PrimaryKeyConstraint("instance", "subject", name=op.f("pk_bison_findings")),
    )
    op.create_table(
        "bison_series_readings",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("read_on", sa.Date(), nullable=False, comment="the date of Email Bison's days"),
        sa.Column("days", postgresql.JSONB(), nullable=False, comment="day, count, number"),
        sa.ForeignKeyConstraint(
            ["workspace"], ["clients.workspace"], name=op.f("fk_bison_series_readings_workspace")
        ),
        sa.PrimaryKeyConstraint("workspace", name=op.f("pk_bison_series_readings")),
    )
    op.add_column(
        "day_zone",
        sa.Column(
            "measured",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="whether it was adopted from a measurement, and is in no setting",
        ),
    )


def downgrade() -> None:
    """Undo this revision."""
    op.drop_column("day_zone", "measured")
    op.drop_table("bison_series_readings")
    op.drop_table("bison_findings")
