"""What a backfill left undone, by the rows of the tables and by `sync_log`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from sqlalchemy import Connection

from kpi_pipeline.db.facts import stored_days
from kpi_pipeline.db.registry.clients import active_clients
from kpi_pipeline.db.sync_log import SyncEntry, read_entries
from kpi_pipeline.domain.calendar import consecutive_ranges
from kpi_pipeline.domain.formatting import listed, period
from kpi_pipeline.services.backfills import BackfillTarget
from kpi_pipeline.sync.scope import KpiAsset

_RANGES_SHOWN = 5


@dataclass(frozen=True)
class BackfillCheck:
    """For each client one log entry over all its runs, and the rows that are missing.

    `missing` maps each table to the days of each client for which it has no row.
    """

    target: BackfillTarget
    entries: Sequence[SyncEntry]
    missing: Mapping[str, Mapping[str, Sequence[date]]]

    @property
    def unreached(self) -> list[str]:
        """The clients that no run finished."""
        reached = {entry.workspace for entry in self.entries}
        return sorted(self.target.dates.keys() - reached)

    @property
    def gaps(self) -> dict[str, list[date]]:
        """By client, the days for which at least one of the tables has no row."""
        days: dict[str, set[date]] = {}
        for of_table in self.missing.values():
            for workspace, missing in of_table.items():
                days.setdefault(workspace, set()).update(missing)
        return {workspace: sorted(days[workspace]) for workspace in sorted(days)}

    @property
    def unfinished(self) -> list[str]:
        """The clients that failed, were not reached, or lack rows."""
        failed = {entry.workspace for entry in self.entries if entry.error is not None}
        return sorted({*failed, *self.unreached, *self.gaps})

    def rows(self, table: str) -> int:
        """How many of the wanted rows `table` has."""
        return self.target.partitions - sum(len(days) for days in self.missing[table].values())


def check_backfill(
    connection: Connection, target: BackfillTarget, run_ids: Sequence[str]
) -> BackfillCheck:
    """Check what these runs wrote, with one query for each table and one for the log."""
    all_dates = [day for dates in target.dates.values() for day in dates]
    missing: dict[str, dict[str, list[date]]] = {}
    for table in KpiAsset:
        stored = stored_days(connection, table, target.dates.keys(), min(all_dates), max(all_dates))
        missing[table] = {
            workspace: absent
            for workspace, dates in target.dates.items()
            if (absent := sorted(set(dates) - stored.get(workspace, set())))
        }
    by_client: dict[str, list[SyncEntry]] = {}
    for entry in read_entries(connection, run_ids):
        by_client.setdefault(entry.workspace, []).append(entry)
    entries = [
        _merged(by_client[it], dates) for it, dates in target.dates.items() if it in by_client
    ]
    return BackfillCheck(target, entries, missing)


def of_active_clients(connection: Connection, target: BackfillTarget) -> BackfillTarget:
    """The part of the target that can still be filled: runs skip a client that is deactivated."""
    active = {client.workspace for client in active_clients(connection)}
    return BackfillTarget({it: dates for it, dates in target.dates.items() if it in active})


def format_ranges(days: Sequence[date]) -> str:
    """Sorted days as text: ranges of consecutive days, the first five of them."""
    return listed([period(*it) for it in consecutive_ranges(days)], _RANGES_SHOWN)


def _merged(entries: Sequence[SyncEntry], dates: Sequence[date]) -> SyncEntry:
    """One entry for a client: seconds and calls summed, and the latest error that still counts.

    A backfill may cover a client's dates in several runs, and repeat those that failed.
    """
    done: set[date] = set()
    for entry in entries:
        if entry.error is None:
            done.update(day for day in dates if entry.first_date <= day <= entry.last_date)
    undone = sorted(set(dates) - done)
    error = None
    if undone:
        errors = [it.error for it in entries if it.error and _covers_one_of(it, undone)]
        workspace = entries[-1].workspace
        unknown = f"{workspace}: no run finished {format_ranges(undone)}; see the runs' logs"
        error = errors[-1] if errors else unknown
    return replace(
        entries[-1],
        error=error,
        key_used=next((it.key_used for it in reversed(entries) if it.key_used), None),
        api_calls=sum(it.api_calls for it in entries),
        seconds=sum(it.seconds for it in entries),
        waiting_seconds=sum(it.waiting_seconds for it in entries),
        calling_seconds=sum(it.calling_seconds for it in entries),
    )


def _covers_one_of(entry: SyncEntry, days: Sequence[date]) -> bool:
    return any(entry.first_date <= day <= entry.last_date for day in days)
