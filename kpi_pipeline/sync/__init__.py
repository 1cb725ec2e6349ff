"""The work of a run, without Dagster: a block of clients and dates, client by client."""
