"""The asset checks: each reads the database about every client at once."""
