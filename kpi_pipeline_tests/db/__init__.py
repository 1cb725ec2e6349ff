"""Promises of the KPI database, on a real PostgreSQL."""
