"""Schedules, by name; they live in the code and are on by default."""
