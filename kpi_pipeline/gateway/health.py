"""`GET /healthz`, `/readyz` and `/freshness`, for load balancers and uptime monitors.

They need the database alone, so they also answer while Dagster is down.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kpi_pipeline.checks.alerting import alerting_problems
from kpi_pipeline.checks.freshness import Deadlines, freshness_statuses
from kpi_pipeline.db.day_zone import require_day_zone
from kpi_pipeline.db.migrate import require_current
from kpi_pipeline.errors import KpiError
from kpi_pipeline.gateway.last_write import LastWrite

_MAX_NAMED = 50
# SQLAlchemy's own message may name server and user, and these endpoints are public.
_UNREACHABLE = "The database cannot be reached; the log of the database says why."
_READ_ONLY = (
    "The database is read-only: it is a standby, or default_transaction_read_only is on. Events "
    "are stored once it accepts writes."
)


@dataclass(frozen=True)
class Health:
    """The endpoints of one installation; `now` is the clock."""

    engine: Engine
    day_zone: ZoneInfo
    now: Callable[[], datetime]
    deadlines: Deadlines
    last_write: LastWrite

    async def alive(self, _: Request) -> Response:
        """200: the process answers."""
        return JSONResponse({"status": "alive"})

    async def ready(self, _: Request) -> Response:
        """200 if events can be stored, else 503 with the reason.

        The database answers, in this version's schema, and accepts writes; and the last attempt to
        store events did not fail a moment ago, as on a full disk.
        """
        problem = await asyncio.to_thread(self._not_ready)
        if problem is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready", "error": problem}, 503)

    async def fresh(self, _: Request) -> Response:
        """200 if all active clients are fresh, and alerts go out; else 503 with what is not so.

        It names the workspaces that are stale, and the kinds of `alerting_problems`.
        """
        try:
            return await asyncio.to_thread(self._fresh)
        except SQLAlchemyError:
            return JSONResponse({"status": "unknown", "error": _UNREACHABLE}, 503)

    def _not_ready(self) -> str | None:
        try:
            require_current(self.engine)
            with self.engine.connect() as connection:
                require_day_zone(connection, self.day_zone)
                # On a standby it is always on.
                if connection.scalar(text("SHOW transaction_read_only")) == "on":
                    return _READ_ONLY
        except KpiError as error:
            return str(error)
        except SQLAlchemyError:
            return _UNREACHABLE
        problem = self.last_write.problem
        return problem and f"Events could not be stored a moment ago: {problem}."

    def _fresh(self) -> Response:
        with self.engine.connect() as connection:
            clients = freshness_statuses(connection, self.now(), self.day_zone, self.deadlines)
            alerting = alerting_problems(connection, self.now())
        stale = [it.workspace for it in clients if it.severity is not None]
        known = [it.as_of for it in clients if it.as_of is not None]
        body = {
            "status": "stale" if stale else "not alerting" if alerting else "fresh",
            "fresh": len(clients) - len(stale),
            "clients": len(clients),
            "stale": stale[:_MAX_NAMED],
            "more": max(len(stale) - _MAX_NAMED, 0),
            "oldest_as_of": min(known).isoformat() if known else None,
            # Their texts name receivers, and this endpoint is public.
            "alerting": sorted({it.kind for it in alerting}),
        }
        return JSONResponse(body, 503 if stale or alerting else 200)
