"""The clock of production; everything that needs one is handed it."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """The instant, in UTC."""
    return datetime.now(UTC)
