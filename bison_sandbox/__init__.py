"""A local Email Bison: a real HTTP server with its API, its limits, and seeded data."""

from bison_sandbox.faults import Fault
from bison_sandbox.options import (
    SandboxError,
    SandboxOptions,
    fault_from_words,
    variants_from_words,
)
from bison_sandbox.server import create_app, serve
from bison_sandbox.variants import Variants

__all__ = [
    "Fault",
    "SandboxError",
    "SandboxOptions",
    "Variants",
    "create_app",
    "fault_from_words",
    "serve",
    "variants_from_words",
]
