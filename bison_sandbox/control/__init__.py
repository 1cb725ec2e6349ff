"""The sandbox's own switches, which the vendor doesn't have: for tests, demos and drills."""

from starlette.routing import BaseRoute

from bison_sandbox.control import agency, deliveries, switches
from bison_sandbox.control.agency import LoopbackOnly

__all__ = ["LoopbackOnly", "routes"]


def routes() -> list[BaseRoute]:
    """All endpoints under /sandbox; none asks for a key."""
    return [*agency.routes(), *switches.routes(), *deliveries.routes()]
