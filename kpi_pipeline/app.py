"""Everything a process needs: settings, database, vault and clock."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from kpi_pipeline.bison import BisonClient, BisonInstance, ClientOptions
from kpi_pipeline.db.coordination.lease import MasterKeyLease
from kpi_pipeline.db.coordination.rate_limiter import InstancePacing
from kpi_pipeline.db.day_zone import ensure_day_zone
from kpi_pipeline.db.migrate import require_current
from kpi_pipeline.db.registry.vault import Vault, open_vault
from kpi_pipeline.db.server.addresses import kpi_address
from kpi_pipeline.db.server.clock import DatabaseClock
from kpi_pipeline.db.server.engine import open_engine, require_reachable
from kpi_pipeline.db.server.retry import retry_on_disconnect
from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.errors import KpiError
from kpi_pipeline.instances import NO_INSTANCE
from kpi_pipeline.settings import Settings

# A call ends at its time-out at the latest; its slot must not expire before.
_SLOT_MARGIN_SECONDS = 30.0
# Of a run, a command, or the sensors: hosts allow some twenty connections for everything.
_POOL_SIZE = 2
# Where KPI_BISON_TIMEZONE is unset and nothing is measured, the zones that may bound Email Bison's
# days, beside KPI_TIMEZONE.
_CANDIDATE_ZONES = (ZoneInfo("UTC"), ZoneInfo("America/New_York"))


@dataclass(frozen=True)
class AppContext:
    """Everything a process needs: settings, database, vault and clock."""

    settings: Settings
    engine: Engine
    vault: Vault
    now: Callable[[], datetime]

    @property
    def timezone(self) -> ZoneInfo:
        """The zone of every time that people set or read: schedules, deadlines, messages."""
        return self.settings.timezone

    @property
    def day_zone(self) -> ZoneInfo:
        """The zone of Email Bison's days: every date is a day of it."""
        return self.settings.day_zone

    def today(self) -> date:
        """The business date now."""
        return business_date(self.now(), self.day_zone)

    def bison_agrees_on(self, day: date, possible: Collection[ZoneInfo] = ()) -> bool:
        """Whether `day` is today for Email Bison: in its zone, or in all that it may have.

        `possible` are the zones that a measurement left, if there was one. KPI_BISON_TIMEZONE goes
        before them.
        """
        known = self.settings.bison_timezone
        zones = (known,) if known else possible or (*_CANDIDATE_ZONES, self.timezone)
        now = self.now()
        return all(business_date(now, zone) == day for zone in zones)

    def instances(self) -> dict[str, BisonInstance]:
        """The configured Email Bison instances, by name."""
        return {
            it.name: BisonInstance(it.name, it.url, it.master_key)
            for it in self.settings.bison_instances
        }

    def instance(self, name: str) -> BisonInstance:
        """The instance called `name`.

        Raises:
            KpiError: if it is not configured.
        """
        known = self.instances()
        if not known:
            raise KpiError(NO_INSTANCE)
        if name not in known:
            raise KpiError(
                f"The Email Bison instance {name!r} is not configured; known: {', '.join(known)}. "
                "Correct KPI_BISON_INSTANCES, or the client's instance in the CSV."
            )
        return known[name]

    def bison_client(self, instance: BisonInstance) -> BisonClient:
        """A client of the instance's API, with the time-outs and limits of the settings.

        All clients of an instance, in all processes, share its rate limit and its master key.
        """
        settings = self.settings
        return BisonClient(
            instance,
            pacing=InstancePacing(
                self.engine,
                instance.name,
                calls_per_second=settings.bison_calls_per_second,
                calls_in_flight=settings.bison_calls_in_flight,
                lease_seconds=settings.bison_timeout_seconds + _SLOT_MARGIN_SECONDS,
            ),
            master_lock=MasterKeyLease(self.engine),
            options=ClientOptions(
                timeout_seconds=settings.bison_timeout_seconds,
                attempts=settings.bison_attempts,
                series_max_days=settings.series_max_days,
            ),
            now=self.now,
        )


@contextmanager
def open_app(
    settings: Settings,
    now: Callable[[], datetime] | None = None,
    *,
    patient: bool = False,
    any_day_zone: bool = False,
) -> Iterator[AppContext]:
    """Connect to the KPI database of the settings; if `patient`, wait while it restarts.

    `now` is the database's clock unless given. With `any_day_zone`, the stored dates may be days of
    another zone than the configured one.

    Raises:
        KpiError: if the settings have none, it is unreachable, its tables are behind the code, or
            its dates are days of another zone.
    """
    if settings.database_url is None:
        raise KpiError(
            "KPI_DATABASE_URL is not set in this process. Start Dagster with `kpi up`, which runs "
            "the embedded database, or set the variable to your own server."
        )
    engine = open_engine(kpi_address(settings), pool_size=_POOL_SIZE)
    try:
        if patient:
            retry_on_disconnect(partial(require_current, engine))
        require_reachable(engine, "KPI_DATABASE_URL")
        require_current(engine)
        if not any_day_zone:
            ensure_day_zone(engine, settings)
        vault = open_vault(settings.secret_key, settings.state_dir)
        yield AppContext(settings, engine, vault, now or DatabaseClock(engine))
    finally:
        engine.dispose()
