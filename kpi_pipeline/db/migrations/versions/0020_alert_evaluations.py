"""When alerts were last evaluated."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    op.create_table(
        "alert_evaluations",
        sa.Column("id", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_alert_evaluations_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_evaluations")),
    )
    # From now on the first evaluation is due, also where none ever succeeds.
    op.execute("INSERT INTO alert_evaluations (ended_at) VALUES (now())")


def downgrade() -> None:
    """Undo this revision."""
    op.drop_table("alert_evaluations")
