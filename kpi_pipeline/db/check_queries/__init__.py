"""Queries of the checks, one file for each check."""
