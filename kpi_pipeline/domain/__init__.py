"""Pure functions and words: calendar, numbers, columns, events, formatting. No I/O."""
