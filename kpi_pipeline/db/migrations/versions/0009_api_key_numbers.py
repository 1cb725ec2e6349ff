"""The numbers of the API keys that each client had, so that an import puts no former one back."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    op.add_column(
        "client_api_keys",
        sa.Column(
            "numbers",
            sa.ARRAY(sa.Text()),
            nullable=False,
            server_default="{}",
            comment="of all keys that were stored for the client, the current one last",
        ),
    )


def downgrade() -> None:
    """Undo this revision."""
    op.drop_column("client_api_keys", "numbers")
