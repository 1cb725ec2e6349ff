"""`GET /freshness`: whether every client's numbers are fresh, from the table alone.

For a monitor from outside: it answers also when Dagster is what stopped.
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

from kpi_pipeline.checks.freshness import Deadlines, read_standings

_MOST_NAMED = 50


@dataclass(frozen=True)
class Freshness:
    """Answers for one installation; the clock is handed in."""

    engine: Engine
    timezone: ZoneInfo
    now: Callable[[], datetime]
    deadlines: Deadlines

    async def answer(self, _: Request) -> Response:
        """200 when all active clients are fresh, else 503, with the keys of those that are not."""
        try:
            return await asyncio.to_thread(self._answer)
        except SQLAlchemyError:
            # Its own words may name the server and the user, and anybody may ask this.
            trouble = "The database cannot be reached; the log of the database says why."
            return JSONResponse({"status": "unknown", "error": trouble}, 503)

    def _answer(self) -> Response:
        with self.engine.connect() as connection:
            clients = read_standings(connection, self.now(), self.timezone, self.deadlines)
        stale = [it.workspace for it in clients if it.severity is not None]
        known = [it.as_of for it in clients if it.as_of is not None]
        body = {
            "status": "stale" if stale else "fresh",
            "fresh": len(clients) - len(stale),
            "clients": len(clients),
            "stale": stale[:_MOST_NAMED],
            "more": max(len(stale) - _MOST_NAMED, 0),
            "oldest_as_of": min(known).isoformat() if known else None,
        }
        return JSONResponse(body, 503 if stale else 200)
