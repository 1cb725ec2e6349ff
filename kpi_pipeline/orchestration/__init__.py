"""Automations that knows Dagster."""
