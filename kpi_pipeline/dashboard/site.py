"""What the handlers of all pages share: settings, database, clock, templates, and who is asking."""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy import URL, Engine
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse

from kpi_pipeline.dashboard import formatting
from kpi_pipeline.db.dagster_tables import open_dagster_database
from kpi_pipeline.db.server.addresses import dagster_address, direct_address
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.settings import Settings
from kpi_pipeline.web.visitor import Visitor

STATIC = Path(__file__).with_name("static")
_DOWNLOADS_AT_ONCE = 1


# Compared as an object: caches have it in their keys, and settings have no hash.
@dataclass(frozen=True, eq=False)
class Site:
    """One dashboard: what its handlers use. `now` is the clock."""

    settings: Settings
    engine: Engine
    now: Callable[[], datetime]
    # Of forms in a dashboard without a login, which has no sessions.
    _secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    @cached_property
    def downloads(self) -> Engine:
        """Connections for downloads of many rows: slow ones must leave those of the pages free."""
        return open_engine(self.engine.url, pool_size=_DOWNLOADS_AT_ONCE)

    @cached_property
    def dagster_database(self) -> Engine:
        """Dagster's own database, of which `GET /metrics` reads a few numbers."""
        return open_dagster_database(dagster_address(self.settings, self.engine.url))

    @property
    def direct_address(self) -> URL | None:
        """The KPI database without the pooler, if the settings name it."""
        if self.settings.database_url is None or self.settings.database_direct_url is None:
            return None
        return direct_address(self.settings)

    def close(self) -> None:
        """Close the connections that this site opened."""
        for name in ("downloads", "dagster_database"):
            if (opened := vars(self).get(name)) is not None:
                opened.dispose()

    @property
    def day_zone(self) -> ZoneInfo:
        """The zone of Email Bison's days: every date is a day of it."""
        return self.settings.day_zone

    @property
    def timezone(self) -> ZoneInfo:
        """The zone of all times that people read."""
        return self.settings.timezone

    def today(self) -> date:
        """The business date now."""
        return business_date(self.now(), self.day_zone)

    def path(self, path: str) -> str:
        """A path of this site, as the browser asks for it behind a proxy."""
        return f"{self.settings.dashboard_path_prefix}{path}"

    def form_token(self, request: Request) -> str:
        """What a form of this visitor's session carries, and no other web page can know."""
        text = visitor(request).session.encode()
        return hmac.digest(self._secret, text, "sha256").hex()

    def require_form_token(self, request: Request, token: str) -> None:
        """Reject a form that is not from a page of this session.

        Raises:
            HTTPException: 403, with a sentence.
        """
        if not hmac.compare_digest(token.encode(), self.form_token(request).encode()):
            raise HTTPException(403, "This form is from another session. Open the page again.")

    def render(
        self, request: Request, template: str, status_code: int = 200, **values: Any
    ) -> HTMLResponse:
        """A page or a part of one."""
        text = (
            _templates()
            .get_template(template)
            .render(
                site=self,
                visitor=visitor(request),
                form_token=self.form_token(request),
                now=self.now(),
                **values,
            )
        )
        return HTMLResponse(text, status_code, {"Cache-Control": "no-store"})

    def part(self, template: str, **values: Any) -> str:
        """A part of a page that is the same for all visitors."""
        return _templates().get_template(template).render(site=self, **values)


def site(request: Request) -> Site:
    """The site that a request is for."""
    found: Site = request.app.state.site
    return found


def visitor(request: Request) -> Visitor:
    """Who sent a request; the guard has let it pass."""
    found: Visitor = request.scope["user"]
    return found


def require_editor(request: Request) -> None:
    """Reject a visitor who may look and change nothing.

    Raises:
        HTTPException: 403, with a sentence.
    """
    if not visitor(request).may_edit:
        raise HTTPException(403, "You may look, and change nothing. Ask an editor.")


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("kpi_pipeline.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= formatting.FILTERS
    environment.globals["static"] = static_path
    return environment


@cache
def static_path(name: str) -> str:
    """The path of a static file, with a version that changes with its contents."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"
