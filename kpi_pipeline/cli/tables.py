"""How a value stands in a table for people."""

from datetime import date, datetime
from decimal import Decimal


def cell(value: object) -> str:
    """The value as text: NULL is "–", never 0; numbers carry separators of thousands."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int() | Decimal():
            return f"{value:,}"
        case datetime():
            return f"{value:%Y-%m-%d %H:%M}"
        case date():
            return value.isoformat()
        case _:
            return str(value)
