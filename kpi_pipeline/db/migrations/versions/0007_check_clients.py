"""A check names the clients of all its problems, not only of the first ones."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"

# Until the check runs again, its stored rows name the clients.
_FROM_THE_ROWS = """
    UPDATE check_outcomes
    SET clients = coalesce(
        (
            SELECT jsonb_agg(DISTINCT coalesce(row ->> 'workspace', row ->> 'client'))
            FROM jsonb_array_elements(offenders) AS row
            WHERE coalesce(row ->> 'workspace', row ->> 'client') IS NOT NULL
        ),
        '[]'
    )
"""


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    comment = "all whom the offenders name"
    op.add_column(
        "check_outcomes",
        sa.Column("clients", postgresql.JSONB(), nullable=True, comment=comment),
    )
    op.execute(_FROM_THE_ROWS)
    op.alter_column("check_outcomes", "clients", nullable=False, existing_comment=comment)


def downgrade() -> None:
    """Undo this revision."""
    op.drop_column("check_outcomes", "clients")
