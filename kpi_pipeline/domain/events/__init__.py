"""What Email Bison's events mean: pure functions, from a body as it arrived to what it counts."""
