"""Pure functions and types: calendar, metrics, columns, events, formatting. No I/O."""
