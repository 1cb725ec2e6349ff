"""`GET /freshness`: whether every client's numbers are fresh, from the table alone.

For a monitor from outside: it answers also when Dagster is what stopped.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kpi_pipeline.business_days import business_date, day_start
from kpi_pipeline.warehouse.client_freshness import ClientFreshness, read_freshness

_MOST_NAMED = 50


@dataclass(frozen=True)
class Deadlines:
    """By when yesterday is to be closed, in local time, and how old today's numbers may get."""

    fresh_by: time = time(6)
    stale_after: timedelta = timedelta(hours=3)


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
        now = self.now()
        local = now.astimezone(self.timezone)
        # Before the deadline, the night's sync may still be at it.
        open_days = 1 if local.time() >= self.deadlines.fresh_by else 2
        today = business_date(now, self.timezone)
        to_be_closed = today - timedelta(days=open_days)
        with self.engine.connect() as connection:
            clients = read_freshness(connection, today, to_be_closed)
        closed_at = day_start(to_be_closed + timedelta(days=1), self.timezone)
        stale = _stale(clients, now - self.deadlines.stale_after, closed_at)
        known = [it.latest for it in clients if it.latest is not None]
        body = {
            "status": "stale" if stale else "fresh",
            "fresh": len(clients) - len(stale),
            "clients": len(clients),
            "stale": stale[:_MOST_NAMED],
            "more": max(len(stale) - _MOST_NAMED, 0),
            "oldest_as_of": min(known).isoformat() if known else None,
        }
        return JSONResponse(body, 503 if stale else 200)


def _stale(
    clients: Sequence[ClientFreshness], not_before: datetime, closed_at: datetime
) -> list[str]:
    """The clients whose latest facts are older than that, or whose day was not closed."""
    return [
        it.workspace
        for it in clients
        if it.latest is None
        or it.latest < not_before
        or it.closing is None
        or it.closing < closed_at
    ]
