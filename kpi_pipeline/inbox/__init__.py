"""The webhook inbox: events are stored first, then applied to the rows. No HTTP, no Dagster."""
