"""What a backfill left, for a person: clients, calls, rows, gaps, and who is doing best."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from kpi_pipeline.cli.report import SyncReport, print_report
from kpi_pipeline.db.metrics import MetricRow
from kpi_pipeline.services.backfill_check import BackfillCheck, in_ranges
from kpi_pipeline.services.backfill_page import BackfillStatus
from kpi_pipeline.sync.scope import KpiAsset

_MOST_CLIENTS = 10


@dataclass(frozen=True)
class BackfillReport:
    """How a backfill ended, what was found afterwards, and the rows of its last date."""

    status: BackfillStatus
    check: BackfillCheck
    rows: Sequence[MetricRow]

    @property
    def complete(self) -> bool:
        """Whether it ran to its end, and every client's every row was written."""
        return not self.status.broken_off and not self.check.undone


def print_backfill(report: BackfillReport, console: Console) -> None:
    """Print the report."""
    check, status = report.check, report.status
    last = max(max(dates) for dates in check.target.dates.values())
    ended_at = status.ended_at or status.launched_at
    sync_report = SyncReport(
        entries=check.entries,
        clients=len(check.target.dates),
        seconds=(ended_at - status.launched_at).total_seconds(),
        date=last,
        # Clients without a number have no rank.
        rows=[row for row in report.rows if row.as_of is not None],
    )
    print_report(sync_report, console)
    for line in _lines(report):
        console.print(line, markup=False, soft_wrap=True)


def command_for_the_rest(check: BackfillCheck) -> str:
    """The command that fills what is not done; all clients where those to do are many."""
    dates = [day for workspace in check.undone for day in check.target.dates[workspace]]
    words = [f"kpi backfill --from {min(dates)} --to {max(dates)}"]
    if len(check.undone) <= _MOST_CLIENTS:
        words += [f"-w {workspace}" for workspace in check.undone]
    if len(check.target.assets) < len(KpiAsset):
        words += [f"--only {asset}" for asset in check.target.assets]
    return " ".join(words)


def _lines(report: BackfillReport) -> list[str]:
    check, status = report.check, report.status
    lines = []
    if status.name == "CANCELED":
        lines.append("The backfill was canceled before its end.")
    elif status.name == "FAILED":
        lines.append(f"Dagster gave the backfill up: {status.error or 'it does not say why'}")
    if check.unreached:
        lines.append(f"Not reached: {_some(check.unreached)}.")
    wanted = check.target.partitions
    counts = ", ".join(f"{check.rows(table):,} in {table}" for table in check.target.assets)
    if not check.gaps:
        # Of a client that failed, rows that were there before are as they were.
        old = ", from before for the clients named above" if check.undone else ""
        lines.append(f"Every row is there{old}: {counts}.")
        return lines
    lines.append(f"Rows are missing; there should be {wanted:,} in each table, and are {counts}:")
    for workspace, days in list(check.gaps.items())[:_MOST_CLIENTS]:
        lines.append(f"  {workspace}: {in_ranges(days)}")
    if len(check.gaps) > _MOST_CLIENTS:
        lines.append(f"  and {len(check.gaps) - _MOST_CLIENTS} more clients")
    return lines


def _some(workspaces: Sequence[str]) -> str:
    more = len(workspaces) - _MOST_CLIENTS
    named = ", ".join(workspaces[:_MOST_CLIENTS])
    return f"{named} and {more} more" if more > 0 else named
