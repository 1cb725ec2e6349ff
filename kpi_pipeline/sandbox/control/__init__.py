"""The sandbox's own switches, which the vendor doesn't have: for tests, demos and drills."""

from starlette.routing import BaseRoute

from kpi_pipeline.sandbox.control import agency, calls, deliveries, faults, keys, manners
from kpi_pipeline.sandbox.control.loopback import LoopbackOnly

__all__ = ["LoopbackOnly", "routes"]


def routes() -> list[BaseRoute]:
    """All endpoints under /sandbox; none asks for a key."""
    return [
        *agency.routes(),
        *keys.routes(),
        *manners.routes(),
        *faults.routes(),
        *calls.routes(),
        *deliveries.routes(),
    ]
