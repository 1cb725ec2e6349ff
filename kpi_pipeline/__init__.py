"""Per-client KPIs of cold-email campaigns, kept current from Email Bison by Dagster."""
