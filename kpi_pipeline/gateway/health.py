"""`GET /healthz`: the process is alive. `GET /readyz`: it can store events."""

import asyncio

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kpi_pipeline.db.migrate import require_current
from kpi_pipeline.errors import KpiError


async def alive(_: Request) -> Response:
    """Answer."""
    return JSONResponse({"status": "alive"})


async def ready(request: Request) -> Response:
    """200 when the database answers and its tables are those of this version, else 503."""
    trouble = await asyncio.to_thread(_trouble, request.app.state.engine)
    if trouble is None:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "not ready", "error": trouble}, 503)


def _trouble(engine: Engine) -> str | None:
    try:
        require_current(engine)
    except KpiError as error:
        return str(error)
    except SQLAlchemyError:
        # Its own words may name the server and the user, and anybody may ask this.
        return "The database cannot be reached; the log of the database says why."
    return None
