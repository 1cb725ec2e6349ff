"""What the checks read, a file for each check."""
