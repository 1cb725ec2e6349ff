"""What a process needs in hand to work: settings, database, vault and clock."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from kpi_pipeline.bison import BisonClient, BisonInstance, ClientOptions, InProcessPacing
from kpi_pipeline.business_days import business_date
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings
from kpi_pipeline.warehouse.engine import open_engine, require_reachable
from kpi_pipeline.warehouse.locks import MasterKeyLock
from kpi_pipeline.warehouse.migrate import require_current
from kpi_pipeline.warehouse.urls import parse_url
from kpi_pipeline.warehouse.vault import Vault, open_vault


def utc_now() -> datetime:
    """The clock of production; everything else is handed one."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Deployment:
    """One installation of the pipeline: an agency, its Email Bison, its database."""

    settings: Settings
    engine: Engine
    vault: Vault
    now: Callable[[], datetime] = utc_now

    @property
    def timezone(self) -> ZoneInfo:
        """The zone that bounds a business day."""
        return self.settings.timezone

    def today(self) -> date:
        """The business date now."""
        return business_date(self.now(), self.timezone)

    def instances(self) -> dict[str, BisonInstance]:
        """The configured Email Bison instances, by name."""
        settings = self.settings
        if settings.bison_url is None:
            return {}
        name = settings.bison_instance
        return {name: BisonInstance(name, settings.bison_url, settings.bison_master_key)}

    def instance(self, name: str) -> BisonInstance:
        """The instance called `name`.

        Raises:
            KpiError: if it is not configured.
        """
        known = self.instances()
        if not known:
            raise KpiError("No Email Bison is configured: set KPI_BISON_URL to its address.")
        if name not in known:
            raise KpiError(
                f"The Email Bison instance {name!r} is not configured; known: {', '.join(known)}. "
                "Mend KPI_BISON_INSTANCE, or the client's instance in the CSV."
            )
        return known[name]

    def bison_client(self, instance: BisonInstance) -> BisonClient:
        """A client of the instance, as patient and as fast as the settings say."""
        settings = self.settings
        return BisonClient(
            instance,
            pacing=InProcessPacing(settings.bison_calls_per_second),
            master_lock=MasterKeyLock(self.engine),
            options=ClientOptions(
                timeout_seconds=settings.bison_timeout_seconds,
                attempts=settings.bison_attempts,
                series_max_days=settings.series_max_days,
            ),
            now=self.now,
        )


@contextmanager
def open_deployment(
    settings: Settings, now: Callable[[], datetime] = utc_now
) -> Iterator[Deployment]:
    """Connect to the database that the settings name.

    Raises:
        KpiError: if none is named, it can't be reached, or its tables are behind the code.
    """
    if settings.database_url is None:
        raise KpiError(
            "KPI_DATABASE_URL is not set in this process. Start Dagster with `kpi up`, which runs "
            "the embedded database, or set the variable to a server of yours."
        )
    engine = open_engine(parse_url(settings.database_url.get_secret_value(), "KPI_DATABASE_URL"))
    try:
        require_reachable(engine, "KPI_DATABASE_URL")
        require_current(engine)
        vault = open_vault(settings.secret_key, settings.state_dir)
        yield Deployment(settings, engine, vault, now)
    finally:
        engine.dispose()
