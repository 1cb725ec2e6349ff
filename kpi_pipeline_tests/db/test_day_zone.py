"""The zone of the stored dates is remembered, and no process works under another one."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine, text

from kpi_pipeline.db.day_zone import ensure_day_zone, require_day_zone, stored_day_zone
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.db.stocked import imported, record, stock_facts

CHICAGO, UTC_ZONE, TOKYO = (ZoneInfo(it) for it in ("America/Chicago", "UTC", "Asia/Tokyo"))
_EVENT = text("""
    INSERT INTO webhook_events (instance, source, arrived_at, happened_at, idempotency_key,
        status, business_date, deliveries, last_delivered_at)
    VALUES ('main', 'webhook', :at, :at, :key, 'unmatched', :day, 1, :at)
""")


def settings(timezone: ZoneInfo, bison_timezone: ZoneInfo | None = None) -> Settings:
    return Settings(timezone=timezone, bison_timezone=bison_timezone)


def remembered(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return stored_day_zone(connection)


@pytest.fixture
def add_event(engine: Engine) -> Callable[[int], None]:
    """Stores an event of that hour (UTC) of 18 March, under its date in Chicago."""

    def add(hour: int) -> None:
        at = datetime(2026, 3, 18, hour, 30, tzinfo=UTC)
        day = at.astimezone(CHICAGO).date()
        with engine.begin() as connection:
            connection.execute(_EVENT, {"at": at, "key": f"event {hour}", "day": day})

    return add


@pytest.fixture
def facts(engine: Engine, vault: Vault) -> None:
    imported(engine, vault, record(101, "Harbor"))
    with engine.begin() as connection:
        stock_facts(connection, "harbor", date(2026, 3, 1), date(2026, 3, 18))


def test_the_first_start_remembers_the_zone_of_email_bisons_days(engine: Engine) -> None:
    assert remembered(engine) is None
    ensure_day_zone(engine, settings(CHICAGO, UTC_ZONE))
    assert remembered(engine) == "UTC"


def test_without_data_the_zone_may_change(engine: Engine) -> None:
    ensure_day_zone(engine, settings(CHICAGO))
    ensure_day_zone(engine, settings(TOKYO))
    assert remembered(engine) == "Asia/Tokyo"


@pytest.mark.usefixtures("facts")
def test_data_of_an_earlier_version_has_dates_of_kpi_timezone(engine: Engine) -> None:
    ensure_day_zone(engine, settings(CHICAGO))
    assert remembered(engine) == "America/Chicago"


@pytest.mark.usefixtures("facts")
def test_an_earlier_version_with_another_zone_of_email_bison_does_not_start(
    engine: Engine,
) -> None:
    for _ in range(2):
        with pytest.raises(KpiError, match=r"are days of America/Chicago, .* now say UTC"):
            ensure_day_zone(engine, settings(CHICAGO, UTC_ZONE))
        assert remembered(engine) == "America/Chicago"


def test_a_change_says_how_many_events_would_move_and_what_to_run(
    engine: Engine, add_event: Callable[[int], None]
) -> None:
    ensure_day_zone(engine, settings(CHICAGO))
    # Chicago's date begins five hours after that of UTC.
    for hour in (0, 4, 5, 23):
        add_event(hour)
    with pytest.raises(KpiError) as refused:
        ensure_day_zone(engine, settings(CHICAGO, UTC_ZONE))
    said = str(refused.value)
    assert "now say UTC (KPI_BISON_TIMEZONE)" in said
    assert "2 of 4 stored events would belong to another day" in said
    assert "all rows have to be computed again" in said
    assert "`kpi recompute --adopt-timezone`" in said
    assert "KPI_BISON_TIMEZONE=America/Chicago" in said


@pytest.mark.usefixtures("facts")
def test_facts_alone_are_reason_enough(engine: Engine) -> None:
    ensure_day_zone(engine, settings(CHICAGO))
    with pytest.raises(KpiError, match=r"Asia/Tokyo \(KPI_TIMEZONE, as KPI_BISON_TIMEZONE is uns"):
        ensure_day_zone(engine, settings(TOKYO))


@pytest.mark.usefixtures("facts")
def test_kpi_timezone_may_change_where_the_zone_of_email_bison_is_set(engine: Engine) -> None:
    ensure_day_zone(engine, settings(CHICAGO))
    ensure_day_zone(engine, settings(CHICAGO, CHICAGO))
    ensure_day_zone(engine, settings(TOKYO, CHICAGO))
    assert remembered(engine) == "America/Chicago"


def test_a_process_of_before_the_change_may_not_write(engine: Engine) -> None:
    with engine.begin() as connection:
        require_day_zone(connection, CHICAGO)
    ensure_day_zone(engine, settings(CHICAGO))
    with engine.begin() as connection:
        require_day_zone(connection, CHICAGO)
        with pytest.raises(KpiError, match="Start it again"):
            require_day_zone(connection, UTC_ZONE)
