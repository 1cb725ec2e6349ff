"""`GET /healthz`, `/readyz` and `/freshness`, for load balancers and uptime monitors.

They need the database alone, so they also answer while Dagster is down.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kpi_pipeline.checks.freshness import Deadlines, freshness_statuses
from kpi_pipeline.db.day_zone import require_day_zone
from kpi_pipeline.db.migrate import require_current
from kpi_pipeline.errors import KpiError

_MAX_NAMED = 50
# SQLAlchemy's own message may name server and user, and these endpoints are public.
_UNREACHABLE = "The database cannot be reached; the log of the database says why."


@dataclass(frozen=True)
class Health:
    """The endpoints of one installation; `now` is the clock."""

    engine: Engine
    day_zone: ZoneInfo
    now: Callable[[], datetime]
    deadlines: Deadlines

    async def alive(self, _: Request) -> Response:
        """200: the process answers."""
        return JSONResponse({"status": "alive"})

    async def ready(self, _: Request) -> Response:
        """200 if events can be stored: the database answers, in this version's schema. Else 503."""
        problem = await asyncio.to_thread(self._not_ready)
        if problem is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready", "error": problem}, 503)

    async def fresh(self, _: Request) -> Response:
        """200 if all active clients are fresh, else 503 with the workspaces that are stale."""
        try:
            return await asyncio.to_thread(self._fresh)
        except SQLAlchemyError:
            return JSONResponse({"status": "unknown", "error": _UNREACHABLE}, 503)

    def _not_ready(self) -> str | None:
        try:
            require_current(self.engine)
            with self.engine.connect() as connection:
                require_day_zone(connection, self.day_zone)
        except KpiError as error:
            return str(error)
        except SQLAlchemyError:
            return _UNREACHABLE
        return None

    def _fresh(self) -> Response:
        with self.engine.connect() as connection:
            clients = freshness_statuses(connection, self.now(), self.day_zone, self.deadlines)
        stale = [it.workspace for it in clients if it.severity is not None]
        known = [it.as_of for it in clients if it.as_of is not None]
        body = {
            "status": "stale" if stale else "fresh",
            "fresh": len(clients) - len(stale),
            "clients": len(clients),
            "stale": stale[:_MAX_NAMED],
            "more": max(len(stale) - _MAX_NAMED, 0),
            "oldest_as_of": min(known).isoformat() if known else None,
        }
        return JSONResponse(body, 503 if stale else 200)
