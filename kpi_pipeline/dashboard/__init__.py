"""The KPI dashboard: web pages and the data API, from the tables alone. No Dagster."""
