"""Serves the dashboard with uvicorn until it receives a signal."""

from collections.abc import Callable
from datetime import datetime

from kpi_pipeline.dashboard.app import create_app
from kpi_pipeline.dashboard.live import Live
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline.db.day_zone import ensure_day_zone, with_measured_zone
from kpi_pipeline.db.migrate import require_current
from kpi_pipeline.db.server.addresses import kpi_address
from kpi_pipeline.db.server.clock import DatabaseClock
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.db.server.retry import retry_on_disconnect
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings
from kpi_pipeline.web.access import require_login
from kpi_pipeline.web.serving import configured, open_listener, serve_until_signal

# A page is read in a few milliseconds, so a few connections answer many people.
_POOL_SIZE = 2
# A person waits for a page.
_REFUSED_SECONDS = 5.0


def serve(
    settings: Settings,
    host: str,
    port: int,
    on_listening: Callable[[str], None],
    now: Callable[[], datetime] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, and answer active requests before the end.

    Port 0 takes any free one. `on_listening` gets the URL of the first page. `now` is the
    database's clock unless given.

    Raises:
        KpiError: if no database is configured or it can't be reached, its tables are of another
            version, its dates are days of another zone, other machines reach `host` and nobody has
            a login, or the port can't be opened.
    """
    if settings.database_url is None:
        raise KpiError(
            "KPI_DATABASE_URL is not set in this process. `kpi up` runs the dashboard with the "
            "embedded database; a dashboard alone needs a server of yours in that variable."
        )
    engine = open_engine(
        kpi_address(settings), pool_size=_POOL_SIZE, refused_seconds=_REFUSED_SECONDS
    )

    def start() -> Settings:
        require_current(engine)
        found = with_measured_zone(engine, settings)
        ensure_day_zone(engine, found)
        return found

    try:
        found = retry_on_disconnect(start).model_copy(update={"dashboard_address": host})
        require_login(found, engine, host, "KPI_DASHBOARD_ADDRESS")
        site = Site(found, engine, now or DatabaseClock(engine))
        # The guard reads the headers of proxies, and needs the proxy's own address for it.
        live = Live(site)
        config = configured(create_app(site, live), proxies=(), unlimited=settings.web_proxies)
        with open_listener(
            host, port, "The dashboard", "KPI_DASHBOARD_ADDRESS", "KPI_DASHBOARD_PORT"
        ) as listener:
            serve_until_signal(
                config,
                listener,
                host,
                lambda base: on_listening(f"{base}{site.path('/')}"),
                on_stopping=live.close,
            )
    finally:
        engine.dispose()
