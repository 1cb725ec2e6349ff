"""What alerts remember of each notice and mute."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"

_INSTANT = sa.DateTime(timezone=True)

# The clients that a receiver knows of, with any kind of error, and the time of its last notice.
_ADD_REASONS = """
    UPDATE alert_state SET told = (
        SELECT jsonb_object_agg(key, value || jsonb_build_object(
            'sent', jsonb_build_array(value -> 'at'),
            'reasons', (
                SELECT coalesce(jsonb_agg(jsonb_build_array(it, '')), '[]')
                FROM jsonb_array_elements(value -> 'clients') it
            )
        )) FROM jsonb_each(told)
    ) WHERE told <> '{}'
"""
_REMOVE_REASONS = """
    UPDATE alert_state SET told = (
        SELECT jsonb_object_agg(key, value - 'reasons' - 'sent') FROM jsonb_each(told)
    ) WHERE told <> '{}'
"""


def upgrade() -> None:
    """Upgrade the tables to this revision."""
    _add("alert_state", "reasons", postgresql.JSONB(), "clients and kinds", list_of=True)
    _add("alert_state", "first_at", _INSTANT, "when it began, within the last day")
    _add(
        "alert_state",
        "came_back",
        postgresql.JSONB(),
        "when it began or became an ERROR again, within the last day",
        list_of=True,
    )
    _add(
        "alert_state",
        "eased_at",
        _INSTANT,
        "since when it is a WARN after an ERROR; NULL otherwise",
    )
    _add("alert_state", "muted_at", _INSTANT, "NULL unless all of it is muted")
    _add("alert_mutes", "muted_at", _INSTANT, "NULL for mutes of older versions")
    _add(
        "alert_mutes",
        "severity",
        sa.Text(),
        "of what was muted; NULL if nothing was open: mutes all",
    )
    op.create_check_constraint(
        op.f("ck_alert_mutes_severity_is_known"), "alert_mutes", "severity IN ('WARN', 'ERROR')"
    )
    op.execute(_ADD_REASONS)


def downgrade() -> None:
    """Undo this revision."""
    op.execute(_REMOVE_REASONS)
    for column in ("severity", "muted_at"):
        op.drop_column("alert_mutes", column)
    for column in ("muted_at", "eased_at", "came_back", "first_at", "reasons"):
        op.drop_column("alert_state", column)


def _add(
    table: str, name: str, kind: sa.types.TypeEngine[Any], comment: str, list_of: bool = False
) -> None:
    default = "[]" if list_of else None
    column = sa.Column(name, kind, nullable=not list_of, server_default=default, comment=comment)
    op.add_column(table, column)
