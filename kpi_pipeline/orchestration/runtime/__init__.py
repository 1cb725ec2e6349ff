"""How Dagster runs here: its storages, daemon and code server."""

# What the code server serves, and its name in Dagster: as in workspace.yaml and [tool.dg].
DEFINITIONS = "kpi_pipeline.definitions"
LOCATION = "kpi_pipeline"
