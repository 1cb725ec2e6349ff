"""What processes share through the database: locks, leases and the rate of calls."""
