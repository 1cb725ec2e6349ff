"""The work of a sync run, without Dagster: a block of workspaces and dates, client by client."""
