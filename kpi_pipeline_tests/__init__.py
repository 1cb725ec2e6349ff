"""Promises of the pipeline, one sentence a test."""
