"""Dagster's code server, as `kpi up` runs it: one for the page and the daemon, that forks its runs.

Dagster's own (`dagster api grpc`) starts a fresh Python for each run, which imports Dagster,
SQLAlchemy and pandas again: more than half of the processor time of a run over a client's year. Its
page and its daemon start one each, and the daemon a new one every minute. This one imports once.
"""
