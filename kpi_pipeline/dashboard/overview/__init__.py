"""`GET /`: all clients on one page."""
