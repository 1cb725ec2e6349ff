"""Dumps of both databases: the file, what is copied into and out of it, and when it was made."""
