"""Drop the cause of a check: it was always the check itself."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    op.drop_column("check_outcomes", "cause")


def downgrade() -> None:
    """Undo this revision."""
    op.add_column(
        "check_outcomes",
        sa.Column(
            "cause", sa.Text(), nullable=True, comment="what several checks may fail for together"
        ),
    )
