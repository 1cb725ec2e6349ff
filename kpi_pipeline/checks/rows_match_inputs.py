"""The check `rows_match_inputs`: every stored number is what its inputs give."""

from datetime import date
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from kpi_pipeline.checks.coverage import DAYS_TO_BE_COMPLETE
from kpi_pipeline.checks.outcome import MAX_PROBLEMS, Check, Outcome, ProblemRow, Severity
from kpi_pipeline.db.check_queries.rows_match_inputs import Cell, Differences, read_differences
from kpi_pipeline.db.day_zone import stored_day_zone
from kpi_pipeline.domain.formatting import counted, listed, period
from kpi_pipeline.domain.remedies import recompute_command


def rows_match_inputs(connection: Connection, today: date, day_zone: ZoneInfo) -> Outcome:
    """The rows of the last 62 days equal what facts, events, targets, labels and plans give.

    They are worked out a second time, in SQL. Dates are days of the zone that the tables name, or
    of `day_zone` in a new installation.
    """
    stored = stored_day_zone(connection)
    zone = day_zone if stored is None else ZoneInfo(stored)
    found = read_differences(connection, today, zone, days=DAYS_TO_BE_COMPLETE, limit=MAX_PROBLEMS)
    return Outcome(
        Check.ROWS_MATCH_INPUTS,
        _description(found),
        Severity.ERROR if found.cells else Severity.WARN,
        [_row(cell) for cell in found.cells],
        found.differing_cells - len(found.cells),
        found.clients,
        {
            "rows": found.rows,
            "differing_rows": found.differing_rows,
            "differing_values": found.differing_cells,
        },
    )


def _description(found: Differences) -> str:
    if found.first is None or found.last is None:
        return (
            f"{counted(found.rows, 'row')} of the last {DAYS_TO_BE_COMPLETE} days: every value "
            "equals what facts, events, targets, labels and sending plans give."
        )
    command = recompute_command(found.first, found.last, found.clients)
    return (
        "Not what facts, events, targets, labels and sending plans give: "
        f"{counted(found.differing_cells, 'value')} in {counted(found.differing_rows, 'row')} of "
        f"{period(found.first, found.last)} ({listed(found.clients)}). A table was changed by "
        f"hand, or the software has an error. `{command}` "
        "computes the rows again, without a call to Email Bison. If the check fails again after "
        "that, report its table."
    )


def _row(cell: Cell) -> ProblemRow:
    missing = cell.column is None
    return {
        "workspace": cell.workspace,
        "date": f"{cell.day}",
        "table": cell.table,
        "column": "(the row)" if missing else cell.column,
        "stored": "missing" if missing else cell.stored,
        "expected": "a row" if missing else cell.expected,
    }
