"""The `kpi` command."""
