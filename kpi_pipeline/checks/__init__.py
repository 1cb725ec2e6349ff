"""The rules of the checks: each judges what a query found, and returns an `Outcome`."""
