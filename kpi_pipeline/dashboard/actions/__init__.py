"""What editors do on the dashboard. GET says what will happen, and POST does it."""

from kpi_pipeline.dashboard.actions import client, runs, targets

ROUTES = [*runs.ROUTES, *targets.ROUTES, *client.ROUTES]
