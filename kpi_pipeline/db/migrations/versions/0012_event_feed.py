"""How far the event feed was read, and what it tells of each event."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_EVENTS = "webhook_events"


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    op.add_column(
        _EVENTS,
        sa.Column("feed_uuid", sa.Text(), comment="its id in the event feed, once that was read"),
    )
    op.add_column(
        _EVENTS,
        sa.Column(
            "recorded_at",
            sa.DateTime(timezone=True),
            comment="when Email Bison recorded it, according to the event feed",
        ),
    )
    op.alter_column(
        _EVENTS, "deliveries", comment="how often it was delivered; 0 if only the feed has it"
    )
    _known_sources("webhook", "file", "feed", "function")
    op.create_index(
        "ix_webhook_events_undelivered",
        _EVENTS,
        ["instance", "recorded_at"],
        postgresql_where=sa.text("deliveries = 0"),
    )
    op.create_table(
        "event_feed",
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("tried_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True)),
        sa.Column(
            "recorded_until",
            sa.DateTime(timezone=True),
            comment="when Email Bison recorded the latest event that was read",
        ),
        sa.Column("problem", sa.Text(), comment="why the last reading failed, or is not complete"),
        sa.ForeignKeyConstraint(
            ["workspace"], ["clients.workspace"], name=op.f("fk_event_feed_workspace")
        ),
        sa.PrimaryKeyConstraint("workspace", "event_type", name=op.f("pk_event_feed")),
    )
    op.create_table(
        "event_feed_missing",
        sa.Column("instance", sa.Text(), nullable=False),
        sa.Column("noted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("instance", name=op.f("pk_event_feed_missing")),
    )


def downgrade() -> None:
    """Undo this revision."""
    op.drop_table("event_feed_missing")
    op.drop_table("event_feed")
    op.drop_index("ix_webhook_events_undelivered", _EVENTS)
    # What the feed alone brought stays, as events of a file.
    op.execute(f"UPDATE {_EVENTS} SET source = 'file', deliveries = 1 WHERE source = 'feed'")  # noqa: S608 - a name of ours
    _known_sources("webhook", "file", "function")
    op.alter_column(_EVENTS, "deliveries", comment=None)
    op.drop_column(_EVENTS, "recorded_at")
    op.drop_column(_EVENTS, "feed_uuid")


def _known_sources(*names: str) -> None:
    constraint = op.f("ck_webhook_events_source_is_known")
    op.drop_constraint(constraint, _EVENTS)
    op.create_check_constraint(
        constraint, _EVENTS, f"source IN ({', '.join(repr(name) for name in names)})"
    )
