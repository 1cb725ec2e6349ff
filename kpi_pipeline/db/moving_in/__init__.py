"""Moving in from the system before this one: its tables, what is taken, what differs."""
