"""A local Email Bison: a real HTTP server of its contract, with real limits and seeded data."""

from kpi_pipeline.sandbox.options import SandboxError, SandboxOptions
from kpi_pipeline.sandbox.server import create_app, serve

__all__ = ["SandboxError", "SandboxOptions", "create_app", "serve"]
