"""Thresholds of checks, for each client."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"

_COLUMNS = {
    "max_sending_shortfall": "of the sending target; NULL: the default of the check sending_pace",
    "min_reply_rate": "of the emails; NULL: the default of the check reply_rate",
}


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    for name, meaning in _COLUMNS.items():
        column = sa.Column(name, sa.Numeric(5, 2), comment=f"percent {meaning}")
        op.add_column("clients", column)
        op.create_check_constraint(
            op.f(f"ck_clients_{name}_is_a_percentage"), "clients", f"{name} BETWEEN 0 AND 100"
        )


def downgrade() -> None:
    """Undo this revision."""
    for name in _COLUMNS:
        op.drop_column("clients", name)
