"""Promises of the local Email Bison, asked for over real HTTP."""
