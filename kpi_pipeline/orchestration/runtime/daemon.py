"""Dagster's daemon, as `kpi up` runs it: it evaluates backfills every five seconds.

Dagster's own evaluates them twice a minute, and needs two evaluations to finish a backfill: one of
five partitions takes a minute.
"""

from kpi_pipeline.orchestration.dagster_private import run_daemon, set_backfill_interval

BACKFILL_INTERVAL_SECONDS = 5

if __name__ == "__main__":
    set_backfill_interval(BACKFILL_INTERVAL_SECONDS)
    run_daemon()
