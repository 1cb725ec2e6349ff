"""Dagster's daemon, as `kpi up` runs it: few runs for a backfill, and frequent evaluations.

Dagster's own makes a run for each client or for each date of a backfill. It evaluates backfills
twice a minute, and needs two evaluations to finish one: one of five partitions takes a minute.
"""

import logging
import os
import threading
from collections.abc import Collection, Mapping, Sequence

from kpi_pipeline.orchestration.backfill_blocks import cut
from kpi_pipeline.orchestration.dagster_private import (
    list_grids_fast,
    run_daemon,
    set_backfill_cut,
    set_backfill_pace,
)
from kpi_pipeline.orchestration.partitions import DATE, WORKSPACE
from kpi_pipeline.orchestration.runs import BACKFILL_PRIORITY, PRIORITY
from kpi_pipeline.settings import load_settings
from kpi_pipeline.settings.logs import log_to_standard_error

_SHORTEST_PAUSE = 1.0
_LONGEST_PAUSE = 10.0
# A new backfill, and one that is cancelled, is found by then, however long it takes to read all.
_LONGEST_UNREAD = 3.0
# A sixth of a core, at most, for the evaluations of a backfill; they take seconds in a large grid.
_TIMES_THE_LAST = 5
# A small backfill is over by then, if nothing else runs.
_YOUNG_SECONDS = 15.0


class AdaptivePace:
    """Evaluates a young backfill every second, and then pauses five times its last evaluation.

    The daemon reads and evaluates in threads of their own.
    """

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._lock = threading.Lock()

    def is_due(self, backfill_id: str, now: float) -> bool:
        """Whether to evaluate this backfill."""
        with self._lock:
            return now >= self._due.get(backfill_id, now)

    def evaluated(self, backfill_id: str, age: float, began: float, ended: float) -> None:
        """Set when the backfill is due again, from its age and its last evaluation, in seconds."""
        pause = _SHORTEST_PAUSE
        if age >= _YOUNG_SECONDS:
            pause = min(max(pause, _TIMES_THE_LAST * (ended - began)), _LONGEST_PAUSE)
        with self._lock:
            # Those of backfills that have ended are dropped.
            self._due = {it: due for it, due in self._due.items() if due > ended}
            # The loop itself pauses; it is not to find the backfill due in a moment.
            self._due[backfill_id] = ended + pause - _SHORTEST_PAUSE / 2

    def pause(self, reading_seconds: float) -> float:
        """How long the daemon waits after reading all backfills, which took so many seconds."""
        return min(max(_SHORTEST_PAUSE, _TIMES_THE_LAST * reading_seconds), _LONGEST_UNREAD)


def ranges_of(
    partition_keys: Collection[str], order: Mapping[str, Sequence[str]]
) -> list[tuple[str, str]] | None:
    """The first and last partition key of each run of a backfill; None for another grid.

    `order` has the keys of each dimension. None, too, if a client is no partition any more.
    """
    if order.keys() != {DATE, WORKSPACE}:
        return None
    dates, workspaces = order[DATE], order[WORKSPACE]
    numbers_of_dates = {key: number for number, key in enumerate(dates)}
    numbers_of_workspaces = {key: number for number, key in enumerate(workspaces)}
    cells = []
    for key in partition_keys:
        day, _, workspace = key.partition("|")
        if day not in numbers_of_dates or workspace not in numbers_of_workspaces:
            return None
        cells.append((numbers_of_workspaces[workspace], numbers_of_dates[day]))
    return [
        (
            f"{dates[it.dates[0]]}|{workspaces[it.clients[0]]}",
            f"{dates[it.dates[1]]}|{workspaces[it.clients[1]]}",
        )
        for it in cut(cells)
    ]


class WithoutIdleTicks(logging.Filter):
    """Drops what the daemon logs of each tick that starts nothing: 14 MB a day of nothing.

    Dagster's page shows these ticks.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record says something that happened."""
        text = record.getMessage()
        return record.levelno > logging.INFO or not (
            text.startswith("Checking for new runs for sensor") or " skipped" in text
        )


if __name__ == "__main__":
    log_to_standard_error(load_settings().log_format, "kpi_pipeline")
    logging.getLogger("dagster.daemon.SensorDaemon").addFilter(WithoutIdleTicks())
    # A backfill that is cancelled while its runs are created stops after this many; Dagster's 25
    # are a minute of large ones.
    os.environ.setdefault("DAGSTER_ASSET_BACKFILL_RUN_CHUNK_SIZE", "2")
    list_grids_fast()
    set_backfill_cut(ranges_of, {PRIORITY: BACKFILL_PRIORITY})
    set_backfill_pace(AdaptivePace())
    run_daemon()
