"""A local Email Bison: a real HTTP server of its contract, with real limits and seeded data."""

from kpi_pipeline.sandbox.fault_kinds import Fault
from kpi_pipeline.sandbox.manners import Manners
from kpi_pipeline.sandbox.options import SandboxError, SandboxOptions
from kpi_pipeline.sandbox.server import create_app, serve
from kpi_pipeline.sandbox.words import fault_from_words, manners_from_words

__all__ = [
    "Fault",
    "Manners",
    "SandboxError",
    "SandboxOptions",
    "create_app",
    "fault_from_words",
    "manners_from_words",
    "serve",
]
