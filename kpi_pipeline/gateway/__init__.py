"""HTTP server for webhooks and health: small, and without Dagster, so that it outlives Dagster."""
