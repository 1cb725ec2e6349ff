"""Alerts: one message when something breaks, reminders while it lasts, one when it is resolved."""
