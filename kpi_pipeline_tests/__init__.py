"""Promises of the pipeline, one sentence a test."""

from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]
