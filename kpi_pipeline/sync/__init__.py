"""The work of a run, without Dagster: a rectangle of clients and dates, client by client."""
