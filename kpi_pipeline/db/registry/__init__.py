"""The clients: identity, labels, targets, API keys and their encryption, and imports."""
