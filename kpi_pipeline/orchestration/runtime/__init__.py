"""How Dagster runs here: its storage, its daemon, its code server."""
