"""Importing this imports all that a run needs, and reads what every run would read from disk.

The code server's fork server imports it once, before it forks a run. It starts no thread and opens
no connection.
"""

import gc
import os
from importlib import import_module

from kpi_pipeline.db.migrate import revisions
from kpi_pipeline.orchestration.dagster_private import RUN_MODULES, write_lines_of_runs
from kpi_pipeline.orchestration.runtime import DEFINITIONS
from kpi_pipeline.settings import zone_names
from kpi_pipeline.settings.logs import JsonLines

_MODULES = (
    DEFINITIONS,
    "kpi_pipeline.orchestration.runtime.storage",
    "kpi_pipeline.sync.run",
    "kpi_pipeline.orchestration.asset_checks.execution",
    "kpi_pipeline.orchestration.automation.state",
    "upath.implementations.local",
    "psycopg",
    "psycopg2.extras",
    "httpcore",
    "anyio._backends._asyncio",
    "anyio.streams.tls",
    "certifi",
    # datetime.strptime imports it at its first call.
    "_strptime",
    *RUN_MODULES,
)

for name in _MODULES:
    import_module(name)
zone_names()
revisions()
if os.environ.get("KPI_LOG_FORMAT") == "json":
    write_lines_of_runs(JsonLines())

# A run's first full collection would touch, and so copy, all that was imported: a quarter of a
# second of each run.
gc.collect()
gc.freeze()
