"""A check is a cause of its own: nothing ever named another."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Bring the tables to this revision."""
    op.drop_column("check_outcomes", "cause")


def downgrade() -> None:
    """Take this revision back."""
    op.add_column(
        "check_outcomes",
        sa.Column(
            "cause", sa.Text(), nullable=True, comment="what several checks may fail for together"
        ),
    )
