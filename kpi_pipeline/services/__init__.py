"""Processes: start, watch and stop them; Dagster's home, page and backfills."""
