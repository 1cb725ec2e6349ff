"""The time zone of the stored dates: remembered in the database, so that no process mixes two.

Facts, events and rows have dates of Email Bison's days. Under another zone, an event near midnight
belongs to another day; `inbox.rezone` moves all of them at once.
"""

from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine, and_, or_, select, text
from sqlalchemy.dialects.postgresql import insert

from kpi_pipeline.db.tables import day_zone
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings

_HAS_DATA = text("""
    SELECT EXISTS (SELECT FROM raw_bison_stats) OR EXISTS (SELECT FROM webhook_events)
        OR EXISTS (SELECT FROM client_metrics)
""")
_MOVED = text("""
    SELECT count(*), count(*) FILTER (
        WHERE business_date <> (coalesce(happened_at, arrived_at) AT TIME ZONE :zone)::date
    )
    FROM webhook_events
    WHERE business_date IS NOT NULL
""")


def stored_day_zone(connection: Connection) -> str | None:
    """The name of the zone of the stored dates; None before the first start."""
    return connection.scalar(select(day_zone.c.zone))


def store_day_zone(connection: Connection, zone: ZoneInfo, *, measured: bool = False) -> None:
    """Remember that all stored dates are days of this zone, and whether it was `measured`."""
    statement = insert(day_zone).values(id=1, zone=zone.key, measured=measured)
    new = statement.excluded
    # Storing the same zone once more does not put it into a setting.
    still = and_(day_zone.c.measured, day_zone.c.zone == new.zone)
    changed = {"zone": new.zone, "measured": or_(new.measured, still), "since": text("now()")}
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changed))


def with_measured_zone(engine: Engine, settings: Settings) -> Settings:
    """The settings, with the zone that was measured and adopted if KPI_BISON_TIMEZONE is unset."""
    if settings.bison_timezone is not None:
        return settings
    with engine.connect() as connection:
        zone = connection.scalar(select(day_zone.c.zone).where(day_zone.c.measured))
    return settings.model_copy(update={"bison_timezone": ZoneInfo(zone)}) if zone else settings


def adopt_measured_zone(engine: Engine, zone: ZoneInfo) -> bool:
    """Make the measured zone that of the dates if none is stored yet; whether that was so."""
    with engine.begin() as connection:
        # No client is imported and no event is stored meanwhile.
        connection.execute(text("LOCK TABLE clients IN SHARE MODE"))
        connection.execute(text("LOCK TABLE webhook_events IN SHARE ROW EXCLUSIVE MODE"))
        if connection.execute(_HAS_DATA).scalar_one():
            return False
        store_day_zone(connection, zone, measured=True)
        return True


def require_day_zone(connection: Connection, zone: ZoneInfo) -> None:
    """Check, before or after writing dates of this zone, that the stored ones are of it as well.

    Raises:
        KpiError: if they are not: the zone was changed after this process started.
    """
    require_same_zone(stored_day_zone(connection), zone)


def require_same_zone(stored: str | None, zone: ZoneInfo) -> None:
    """As `require_day_zone`, for the name of the stored zone, if there is one."""
    if stored not in (None, zone.key):
        raise KpiError(
            f"The stored dates are days of {stored} by now, and this process still works with "
            f"{zone.key}. Nothing is written. Start it again with the changed settings."
        )


def ensure_day_zone(engine: Engine, settings: Settings) -> None:
    """Check at the start of a process that the stored dates are days of the configured zone.

    At the first start there is no data, and the configured zone is remembered. A database of an
    earlier version has data and no remembered zone: its dates are days of KPI_TIMEZONE.

    Raises:
        KpiError: if they are days of another zone. It says what the change means, and what to do.
    """
    with engine.begin() as connection:
        stored = stored_day_zone(connection)
        if stored == settings.day_zone.key:
            return
        has_data = connection.execute(_HAS_DATA).scalar_one()
        if stored is None and has_data:
            stored = settings.timezone.key
            store_day_zone(connection, settings.timezone)
        measured = connection.scalar(select(day_zone.c.measured))
        # A process that does not get the measured zone must not set it back unnoticed.
        if not has_data and not (measured and settings.bison_timezone is None):
            store_day_zone(connection, settings.day_zone)
            return
        if stored == settings.day_zone.key:
            return
        moved = connection.execute(_MOVED, {"zone": settings.day_zone.key}).one()
    # Raised after the transaction: what was found out about an earlier version is stored.
    raise KpiError(_what_it_means(stored or "", settings, *moved))


def _what_it_means(stored: str, settings: Settings, events: int, moved: int) -> str:
    if settings.bison_timezone is None:
        setting = "KPI_TIMEZONE, as KPI_BISON_TIMEZONE is unset"
    else:
        setting = "KPI_BISON_TIMEZONE"
    return (
        f"The stored dates are days of {stored}, and the settings now say {settings.day_zone.key} "
        f"({setting}). Under it, {moved:,} of {counted(events, 'stored event')} would belong to "
        "another day; daily facts keep the dates that Email Bison gave them, and all rows have to "
        "be computed again. To change it, stop everything that uses this database (`kpi up`, "
        "gateways, runs), run `kpi recompute --adopt-timezone`, and start again. Else set the zone "
        f"of Email Bison's days back: KPI_BISON_TIMEZONE={stored}."
    )
