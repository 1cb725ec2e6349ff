"""A local Email Bison: a real HTTP server of its contract, with real limits and seeded data."""

from bison_sandbox.faults import Fault
from bison_sandbox.options import SandboxError, SandboxOptions
from bison_sandbox.server import create_app, serve
from bison_sandbox.variants import Variants
from bison_sandbox.words import fault_from_words, manners_from_words

__all__ = [
    "Fault",
    "SandboxError",
    "SandboxOptions",
    "Variants",
    "create_app",
    "fault_from_words",
    "manners_from_words",
    "serve",
]
