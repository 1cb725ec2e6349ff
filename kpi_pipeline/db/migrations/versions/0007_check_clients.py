"""A check names all clients in trouble, and not the first offenders' alone."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"

# What a check found stands until its next round; until then the rows that there are must do.
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
    """Bring the tables to this revision."""
    comment = "all whom the offenders name"
    op.add_column(
        "check_outcomes",
        sa.Column("clients", postgresql.JSONB(), nullable=True, comment=comment),
    )
    op.execute(_FROM_THE_ROWS)
    op.alter_column("check_outcomes", "clients", nullable=False, existing_comment=comment)


def downgrade() -> None:
    """Take this revision back."""
    op.drop_column("check_outcomes", "clients")
