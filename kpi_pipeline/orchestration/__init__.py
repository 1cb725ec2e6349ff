"""The Dagster layer: assets, checks, schedules, sensors, partitions, and how Dagster runs."""
