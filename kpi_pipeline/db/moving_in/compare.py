"""The old rows against those that were computed here from daily facts: what differs, and how."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import Connection, text

from kpi_pipeline.domain.columns import COUNTS, METRIC_COLUMNS

# The old rates were NUMERIC(5, 2), and cut to this.
_CLAMPED = Decimal("999.99")
_ROUNDING = Decimal("0.01")

_ROWS = text("""
    SELECT o.workspace, o.metric_date, o.row AS old, c.active, to_jsonb(m) AS ours
    FROM old_metrics o
    JOIN clients c ON c.workspace = o.workspace
    LEFT JOIN client_metrics m ON m.workspace = o.workspace AND m.metric_date = o.metric_date
        AND m.metric_type = 'mtd'
    WHERE o.metric_type = 'mtd'
    ORDER BY o.workspace, o.metric_date
""")
_GAPS = text("""
    SELECT workspace, max(metric_date) - min(metric_date) + 1 - count(*) AS days
    FROM old_metrics WHERE metric_type = 'mtd'
    GROUP BY workspace HAVING max(metric_date) - min(metric_date) + 1 > count(*)
    ORDER BY workspace
""")


class Kind(StrEnum):
    """How an old number differs from ours."""

    MISSING = "missing there"
    ZERO = "0 there"
    CLAMPED = "cut to 999.99 there"
    NONE_HERE = "not known here"
    OTHER = "another number"


@dataclass(frozen=True)
class Difference:
    """A number of a client's day that the old system had otherwise; `old` is as it was stored."""

    workspace: str
    metric_date: date
    column: str
    old: str | None
    here: Decimal | None
    kind: Kind


@dataclass
class Comparison:
    """What the comparison of all old month-to-date rows found.

    `compared` counts the rows that both have, `equal` those of them without any difference.
    `uncomputed` are the old rows of active clients of which there is no row here, by client;
    `gaps` is the number of days without an old row between a client's first and last.
    """

    compared: int = 0
    equal: int = 0
    differences: list[Difference] = field(default_factory=list)
    uncomputed: dict[str, list[date]] = field(default_factory=dict)
    of_inactive: int = 0
    in_future: int = 0
    gaps: Mapping[str, int] = field(default_factory=dict)

    def by_column(self) -> dict[str, Counter[Kind]]:
        """How many numbers differ, by column and kind; columns in the order of the table."""
        counts: defaultdict[str, Counter[Kind]] = defaultdict(Counter)
        for it in self.differences:
            counts[it.column][it.kind] += 1
        return {name: counts[name] for name in METRIC_COLUMNS if name in counts}

    def largest(self, column: str) -> Difference:
        """The difference of that column with the largest distance, those of 0 and nothing last."""
        of_column = [it for it in self.differences if it.column == column]
        return max(of_column, key=lambda it: (it.kind is Kind.OTHER, _distance(it)))


def compare_old_rows(connection: Connection, today: date) -> Comparison:
    """Compare every old row with the row of the same client and date that was computed here."""
    found = Comparison(gaps={it.workspace: it.days for it in connection.execute(_GAPS)})
    for row in connection.execute(_ROWS):
        found.in_future += row.metric_date > today
        if row.ours is None and row.active:
            found.uncomputed.setdefault(row.workspace, []).append(row.metric_date)
        elif row.ours is None:
            found.of_inactive += 1
        else:
            differences = list(_differences(row.workspace, row.metric_date, row.old, row.ours))
            found.compared += 1
            found.equal += not differences
            found.differences += differences
    return found


def _differences(
    workspace: str, day: date, old: Mapping[str, object], ours: Mapping[str, object]
) -> Iterator[Difference]:
    for column in METRIC_COLUMNS:
        # A column that the old table does not have says nothing.
        if column not in old:
            continue
        there, here = _number(old[column]), _number(ours[column])
        if (kind := _kind(column, old[column], there, here)) is not None:
            stored = None if old[column] is None else str(old[column])
            yield Difference(workspace, day, column, stored, here, kind)


def _kind(column: str, stored: object, there: Decimal | None, here: Decimal | None) -> Kind | None:
    if there is None and here is None:
        # NaN, where there is no target.
        return None if stored is None else Kind.NONE_HERE
    if here is None:
        return Kind.NONE_HERE
    if there is None:
        return Kind.MISSING if stored is None else Kind.OTHER
    if abs(there - here) <= (0 if column in COUNTS else _ROUNDING):
        return None
    if there == 0:
        return Kind.ZERO
    if column not in COUNTS and abs(there) == _CLAMPED and abs(here) > _CLAMPED:
        return Kind.CLAMPED
    return Kind.OTHER


def _number(value: object) -> Decimal | None:
    if value is None:
        return None
    try:
        number = Decimal(str(value))
    except ArithmeticError:
        return None
    return number if number.is_finite() else None


def _distance(difference: Difference) -> Decimal:
    return abs((_number(difference.old) or Decimal(0)) - (difference.here or Decimal(0)))


def as_lines(differences: Sequence[Difference]) -> Iterator[tuple[str, ...]]:
    """Rows of a CSV, the header first."""
    yield ("workspace", "metric_date", "column", "old", "here", "kind")
    for it in differences:
        here = "" if it.here is None else str(it.here)
        yield (it.workspace, str(it.metric_date), it.column, it.old or "", here, it.kind.value)
