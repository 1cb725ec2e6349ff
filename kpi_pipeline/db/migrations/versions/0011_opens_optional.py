"""Opens are optional: an instance may leave them out, and no number is computed from them."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_COLUMNS = ("total_opens", "unique_opens")


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    for name in _COLUMNS:
        op.alter_column("raw_bison_stats", name, nullable=True)


def downgrade() -> None:
    """Undo this revision."""
    facts = sa.table("raw_bison_stats", *map(sa.column, _COLUMNS))
    for name in _COLUMNS:
        op.execute(sa.update(facts).where(facts.c[name].is_(None)).values({name: 0}))
        op.alter_column("raw_bison_stats", name, nullable=False)
