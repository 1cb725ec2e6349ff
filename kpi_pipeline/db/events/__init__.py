"""The rows of `webhook_events`, and how far the event feed was read."""
