"""The work of events, without HTTP and without Dagster: stored first, then worked into the rows."""
