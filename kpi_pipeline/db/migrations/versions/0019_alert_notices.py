"""What alerts remember of each notice and mute."""

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Upgrade the tables to this revision."""


def downgrade() -> None:
    """Undo this revision."""
