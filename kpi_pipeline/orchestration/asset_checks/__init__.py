"""Asset checks, by what they look after: each asks the database about every client at once."""
