"""Takes webhooks in, and tells whether all is well: a small HTTP server that knows no Dagster."""
