"""Email Bison's events, from the body as it arrived to the counts that it raises. No I/O."""
