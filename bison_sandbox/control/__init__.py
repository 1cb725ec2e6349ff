"""The sandbox's own endpoints, which the vendor does not have."""

from starlette.routing import BaseRoute

from bison_sandbox.control import agency, deliveries, guide, switches
from bison_sandbox.control.agency import LoopbackOnly

__all__ = ["LoopbackOnly", "routes"]


def routes() -> list[BaseRoute]:
    """The guide, and all endpoints under /sandbox; none asks for a key."""
    return [*guide.routes(), *agency.routes(), *switches.routes(), *deliveries.routes()]
