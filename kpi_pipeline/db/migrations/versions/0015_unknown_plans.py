"""A sending plan that could not be read is remembered with the time of the request."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

_COLUMNS = ("emails_scheduled_today", "emails_scheduled_tomorrow")


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    for name in _COLUMNS:
        op.alter_column("sending_plans", name, nullable=True)


def downgrade() -> None:
    """Undo this revision."""
    plans = sa.table("sending_plans", *map(sa.column, _COLUMNS))
    op.execute(sa.delete(plans).where(sa.or_(*(plans.c[name].is_(None) for name in _COLUMNS))))
    for name in _COLUMNS:
        op.alter_column("sending_plans", name, nullable=False)
