from ipaddress import IPv6Address, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from kpi_pipeline.sandbox.errors import ApiError


class LoopbackOnly:
    """Middleware that answers /sandbox to callers on this machine alone: it hands out keys."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        outside = (
            scope["type"] == "http"
            and scope["path"].startswith("/sandbox")
            and not is_loopback(scope["client"][0] if scope.get("client") else "")
        )
        if outside:
            error = ApiError(403, "The sandbox's own switches answer on this machine only.")
            await error.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether a caller's address is one of this machine."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
