"""When alerts were last evaluated."""

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Upgrade the tables to this revision."""


def downgrade() -> None:
    """Undo this revision."""
