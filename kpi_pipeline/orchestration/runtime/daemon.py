"""Dagster's daemon, as `kpi up` runs it: one that looks at backfills every few seconds.

Dagster's own looks twice a minute, which no setting changes: it needs two looks to see that a
backfill of five partitions is over, and a minute goes by.
"""

from dagster._daemon import controller
from dagster._daemon.cli import main

_LOOK_EVERY_SECONDS = 5


def look_often() -> None:
    """Have the daemon of this process look at backfills every five seconds."""
    # The one thing of Dagster's that is replaced; it is read anew when the daemon's loop begins.
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = _LOOK_EVERY_SECONDS


if __name__ == "__main__":
    look_often()
    main()
