"""Thresholds of checks, for each client."""

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Upgrade the tables to this revision."""


def downgrade() -> None:
    """Undo this revision."""
