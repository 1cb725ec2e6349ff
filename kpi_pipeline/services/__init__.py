"""Processes: start, watch and stop them; Dagster's home, its page and its backfills."""
