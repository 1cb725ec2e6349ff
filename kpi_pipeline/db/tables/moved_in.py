"""What was taken from the system before this one, and the roles that may read the numbers."""

from sqlalchemy import Column, Date, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from kpi_pipeline.db.tables.base import metadata, moment, updated_at, workspace_key

# The client's row of the old registry, by column; API keys are left out. The view client_registry
# shows what this pipeline does not know, such as prices.
old_clients = Table(
    "old_clients",
    metadata,
    workspace_key(),
    Column("row", JSONB, nullable=False),
    updated_at(),
)

# Rows of the old client_metrics as they were stored, wrong ones included. No number is computed
# from them.
old_metrics = Table(
    "old_metrics",
    metadata,
    workspace_key(),
    Column("metric_date", Date, primary_key=True),
    Column("metric_type", Text, primary_key=True),
    Column("row", JSONB, nullable=False),
    updated_at(),
)

# Roles to which `kpi db grant-reader` gave the right to read. An upgrade gives it again, for what
# is new.
readers = Table("readers", metadata, Column("role", Text, primary_key=True), moment("granted_at"))
