"""The sandbox's own endpoints under /sandbox, which the vendor does not have."""

from starlette.routing import BaseRoute

from bison_sandbox.control import agency, deliveries, switches
from bison_sandbox.control.agency import LoopbackOnly

__all__ = ["LoopbackOnly", "routes"]


def routes() -> list[BaseRoute]:
    """All endpoints under /sandbox; none asks for a key."""
    return [*agency.routes(), *switches.routes(), *deliveries.routes()]
