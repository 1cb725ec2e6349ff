"""Dagster's code server, as `kpi up` runs it: one for the page and the daemon, that forks its runs.

Dagster's own (`dagster api grpc`) starts a fresh Python for each run, which imports Dagster,
SQLAlchemy and pandas again: more than half of the processor time of a run over a client's year. Its
page and its daemon start one each, and the daemon a new one every minute. This one imports once.
"""

LOCATION = "kpi_pipeline"
DEFINITIONS = "kpi_pipeline.definitions"
# All that a run needs; importing it starts no thread and opens no connection.
FOR_RUNS = (
    DEFINITIONS,
    "kpi_pipeline.orchestration.runtime.storage",
    "kpi_pipeline.sync.run",
    "kpi_pipeline.orchestration.asset_checks.check_run",
    "kpi_pipeline.orchestration.automation.alive",
    "kpi_pipeline.orchestration.runtime.code_server.warm_up",
    "dagster._grpc.impl",
    "dagster._core.executor.in_process",
    "dagster._core.storage.local_compute_log_manager",
    "upath.implementations.local",
    "psycopg",
    "httpcore",
    "certifi",
)
