"""Tells people what is wrong, once, and again when it is over; knows no Dagster."""
