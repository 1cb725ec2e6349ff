"""Numbers of a row that can't be right, and why others are missing, in words for people."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from kpi_pipeline.domain.columns import COUNTS, PERCENTAGES

# Clocks that differ by less are right.
_CLOCK_TOLERANCE = timedelta(minutes=1)
_SHARES = ("reply_rate_mtd", "positive_rate_mtd", "bounce_rate_mtd")
# Each pair holds a window and a longer one that includes it.
_NESTED = (
    *(
        (f"{what}_last_{shorter}_days", f"{what}_last_{longer}_days")
        for what in ("positive_replies", "emails_sent")
        for shorter, longer in ((7, 14), (14, 30))
    ),
    ("positive_replies_today", "positive_replies_mtd"),
    ("positive_replies_today", "positive_replies_last_7_days"),
    ("emails_sent_today", "emails_sent_mtd"),
    ("emails_sent_today", "emails_sent_last_7_days"),
    ("positive_replies_mtd", "projection_positive_replies_eom"),
    ("emails_sent_mtd", "projection_emails_eom"),
)
_NEGATIVE = (
    *COUNTS,
    *(it for it in PERCENTAGES if it != "last_week_vs_week_before_progress"),
    "monthly_kpi_target",
    "monthly_sending_target",
    "emails_scheduled_today",
    "emails_scheduled_tomorrow",
)


def is_from_future(as_of: datetime | None, now: datetime) -> bool:
    """Whether numbers claim to be from an instant that is still to come."""
    return as_of is not None and as_of > now + _CLOCK_TOLERANCE


def not_finite(value: Any) -> bool:
    """Whether it is what NUMERIC has beside numbers: NaN, or an infinity."""
    return isinstance(value, Decimal) and not value.is_finite()


def wrong_values(row: Mapping[str, Any], *, from_future: bool = False) -> dict[str, str]:
    """Why a number of a row, or its `as_of`, can't be right, by column; of a right row, nothing."""
    found = {name: "Can't be right: not a number" for name in PERCENTAGES if not_finite(row[name])}
    for shorter, longer in _NESTED:
        part, whole = row[shorter], row[longer]
        if part is not None and whole is not None and part > whole:
            text = f"Can't be right: {_words(shorter)} {part:,}, {_words(longer)} only {whole:,}"
            found.setdefault(shorter, text)
            found.setdefault(longer, text)
    right = {name: value for name, value in row.items() if not not_finite(value)}
    for name in _SHARES:
        if (share := right.get(name)) is not None and share > 100:
            found[name] = f"Can't be right: {share} % is more than all emails sent"
    for name in _NEGATIVE:
        if (number := right.get(name)) is not None and number < 0:
            found[name] = "Can't be right: below 0"
    if from_future:
        found["as_of"] = "Can't be right: in the future. A clock was ahead; the next sync mends it"
    return found


def missing_reason(column: str) -> str:
    """Why a row lacks a number."""
    if column.startswith("emails_scheduled"):
        return "No sending plan was read for this day"
    if column == "monthly_kpi_target":
        return "No target for the month"
    if column in ("monthly_sending_target", "daily_quota"):
        return "No sending target for the month"
    if column in ("mtd_leads_progress", "projection_replies_progress"):
        return "No target for the month, or a day of it was never fetched"
    if column in ("sending_progress", "projection_sending_progress"):
        return "No sending target for the month, or a day of it was never fetched"
    if column in _SHARES:
        return "No emails sent in the month, or a day of it was never fetched"
    if column == "last_week_vs_week_before_progress":
        return "No positive replies in the week before, or a day of the two was never fetched"
    return "A day of this period was never fetched"


def _words(column: str) -> str:
    return column.replace("_eom", "").replace("_mtd", " of the month").replace("_", " ")
