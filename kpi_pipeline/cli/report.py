"""The report of a sync: clients, time, API calls and keys, and the best clients."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kpi_pipeline.cli.common import cell, print_whole
from kpi_pipeline.db.metrics import MetricRow
from kpi_pipeline.db.sync_log import SyncEntry
from kpi_pipeline.domain.formatting import counted

_SHOWN = 10


@dataclass(frozen=True)
class SyncReport:
    """One sync: its log entries, and the rows of its last date."""

    entries: Sequence[SyncEntry]
    clients: int
    seconds: float
    date: date
    rows: Sequence[MetricRow]

    @property
    def failed(self) -> list[SyncEntry]:
        """The entries of the clients that failed."""
        return [entry for entry in self.entries if entry.error is not None]

    @property
    def complete(self) -> bool:
        """Whether every client was synced without an error."""
        return len(self.entries) == self.clients and not self.failed


def print_report(report: SyncReport, console: Console) -> None:
    """Print the report."""
    ok = len(report.entries) - len(report.failed)
    calls = sum(entry.api_calls for entry in report.entries)
    keys = Counter(entry.key_used for entry in report.entries if entry.key_used)
    console.print(
        f"\n[bold]{ok} of {counted(report.clients, 'client')} ok[/bold] in {report.seconds:.1f} s, "
        f"{counted(calls, 'API call')}; {keys['workspace']} of {keys.total()} with their own key",
        soft_wrap=True,
    )
    waiting = sum(entry.waiting_seconds for entry in report.entries)
    calling = sum(entry.calling_seconds for entry in report.entries)
    console.print(
        f"Summed over concurrent clients: {calling:.1f} s in calls, {waiting:.1f} s waiting for a "
        "slot",
        soft_wrap=True,
    )
    for entry in report.failed:
        console.print(f"[red]✗[/red] {escape(entry.error or '')}", soft_wrap=True)
    missing = report.clients - len(report.entries)
    if missing:
        were = f"{counted(missing, 'client')} {'was' if missing == 1 else 'were'}"
        console.print(f"[red]✗[/red] {were} not reached; see the run's log")
    if report.rows:
        print_whole(_best(report), console)


def _best(report: SyncReport) -> Table:
    ranked = sorted(
        report.rows, key=lambda row: (-(row.positive_replies_mtd or 0), row.display_name)
    )
    table = Table(
        title=f"Best {min(_SHOWN, len(ranked))} of {counted(len(ranked), 'client')} by positive "
        f"replies, {report.date:%B %Y} to {report.date}",
        title_justify="left",
    )
    table.add_column("Client")
    for heading in ("Positive replies", "Projection", "Target", "% of target"):
        table.add_column(heading, justify="right")
    for row in ranked[:_SHOWN]:
        table.add_row(
            escape(row.display_name),
            cell(row.positive_replies_mtd),
            cell(row.projection_positive_replies_eom),
            cell(row.monthly_kpi_target),
            cell(row.mtd_leads_progress),
        )
    return table
