"""A progress bar over the clients of a run, fed from the sync's own log."""

import time
from collections.abc import Callable

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import Engine

from kpi_pipeline.db.sync_log import count_entries
from kpi_pipeline.services.console import err

_LOOK_EVERY_SECONDS = 0.3


def watch_run(
    engine: Engine,
    run_id: str,
    clients: int,
    title: str,
    finished: Callable[[], bool],
) -> None:
    """Show how many of `clients` the run is done with, until `finished` says that it has ended."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("clients"),
        TimeElapsedColumn(),
        console=err,
    ) as progress:
        task = progress.add_task(title, total=clients)
        while True:
            # Asked first: what the run wrote before it ended is then counted for sure.
            over = finished()
            with engine.connect() as connection:
                progress.update(task, completed=count_entries(connection, run_id))
            if over:
                return
            time.sleep(_LOOK_EVERY_SECONDS)
