"""Promises of the local Email Bison, checked over real HTTP."""
