"""Faults of Dagster, alerts, backups, and of the numbers."""

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psutil

from kpi_pipeline.db.alerts import FailingReceiver, forget_failing, store_failing
from kpi_pipeline.db.backup.record import LastDump, note_dump
from kpi_pipeline.db.check_results import StoredOutcome, store_outcomes
from kpi_pipeline.db.dagster_tables import DAEMON_CLAIM_KEY
from kpi_pipeline.db.sync_log import SyncEntry, store_entry
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.parts import Parts, PartState, PartStatus, write_parts
from kpi_pipeline_tests.cli.running import closed_port, days_ago
from kpi_pipeline_tests.services.doctor.faults.fault import WARNING, Patch, fault, setting
from kpi_pipeline_tests.services.doctor.installation import Well

# Dagster.


@fault("dagster", "cannot be reached")
def dagsters_database_is_away(well: Well, patch: Patch) -> Iterator[None]:
    patch.setenv("KPI_DAGSTER_DATABASE_URL", f"postgresql://nobody@127.0.0.1:{closed_port()}/none")
    yield


@fault("dagster", "Dagster's tables are not those of this version")
def dagsters_tables_are_of_an_earlier_version(well: Well, patch: Patch) -> Iterator[None]:
    with well.dagster_engine.connect() as connection:
        (current,) = connection.exec_driver_sql("SELECT version_num FROM alembic_version").one()
    # The one before Dagster's heartbeats had partitions: any that is known.
    well.dagster_sql("UPDATE alembic_version SET version_num = '7e2f3204cf8e'")
    yield
    well.dagster_sql("UPDATE alembic_version SET version_num = :it", it=current)


def _claim(well: Well, **changed: object) -> Iterator[None]:
    with well.dagster_engine.connect() as connection:
        (before,) = connection.exec_driver_sql(
            "SELECT value FROM kvs WHERE key = %(key)s", {"key": DAEMON_CLAIM_KEY}
        ).one()
    statement = "UPDATE kvs SET value = :value WHERE key = :key"
    value = json.dumps({**json.loads(before), **changed})
    well.dagster_sql(statement, key=DAEMON_CLAIM_KEY, value=value)
    yield
    well.dagster_sql(statement, key=DAEMON_CLAIM_KEY, value=before)


@fault("daemon", "nothing is synced, checked or alerted. Start `kpi up`")
def a_daemon_that_was_killed(well: Well, patch: Patch) -> Iterator[None]:
    yield from _claim(well, renewed_at=well.app.now().timestamp() - 300)


@fault("daemon", "Dagster was stopped")
def a_daemon_that_was_stopped(well: Well, patch: Patch) -> Iterator[None]:
    yield from _claim(well, renewed_at=well.app.now().timestamp() - 60, released=True)


@fault("parts", "The dashboard ended too often")
def a_part_that_was_given_up(well: Well, patch: Patch) -> Iterator[None]:
    part = PartState("dashboard", "The dashboard", PartStatus.GIVEN_UP, utc_now(), reason="killed")
    yield from _parts(well, part)


@fault("parts", "The gateway ended too often")
def a_gateway_that_was_given_up(well: Well, patch: Patch) -> Iterator[None]:
    well.door.shut = 502
    part = PartState("gateway", "The gateway", PartStatus.GIVEN_UP, utc_now(), reason="killed")
    yield from _parts(well, part)
    well.door.shut = None


def _parts(well: Well, part: PartState) -> Iterator[None]:
    folder = Path(well.environment["KPI_STATE_DIR"])
    created = psutil.Process().create_time()
    write_parts(folder, Parts("kpi up", os.getpid(), created, [part]))
    yield
    (folder / "parts.json").unlink()


@fault("automation", "Schedule daily_kpi_sync is switched off.")
def a_schedule_that_is_off(well: Well, patch: Patch) -> Iterator[None]:
    well.tick("daily_kpi_sync", on=False)
    yield
    well.tick("daily_kpi_sync", at=utc_now() + timedelta(hours=2))


@fault("automation", "Sensor alert_sensor failed at its last 3 ticks")
def a_sensor_that_fails(well: Well, patch: Patch) -> Iterator[None]:
    later = utc_now() + timedelta(hours=2)
    for seconds in range(3):
        well.tick("alert_sensor", good=False, at=later + timedelta(seconds=seconds))
    yield
    well.tick("alert_sensor", at=later + timedelta(seconds=9))


# Alerts and backups.

setting("alerts", "Nobody is alerted", "KPI_ALERT_URLS", "", WARNING)
setting("alerts", "that is no address that apprise knows", "KPI_ALERT_URLS", "unknown://x")


@fault("alerts", "has accepted no alert for 1 h 0 min")
def a_receiver_that_accepts_nothing(well: Well, patch: Patch) -> Iterator[None]:
    now = well.app.now()
    name = "json://127.0.0.1"
    with well.app.engine.begin() as connection:
        store_failing(connection, FailingReceiver(name, 9, now - timedelta(hours=1), now))
    yield
    with well.app.engine.begin() as connection:
        forget_failing(connection, name)


@fault("alerts", "Alerts have not been evaluated for 1 h ")
def alerts_that_are_not_evaluated(well: Well, patch: Patch) -> Iterator[None]:
    statement = "UPDATE alert_evaluations SET ended_at = now() {} '1 hour'"
    well.sql(statement.format("- interval"))
    yield
    well.sql(statement.format("+ interval"))


def _dump(well: Well, age: timedelta | None) -> Iterator[None]:
    with well.dagster_engine.begin() as connection:
        if age is None:
            connection.exec_driver_sql("DELETE FROM kvs WHERE key = 'kpi/last_dump'")
        else:
            note_dump(connection, LastDump(well.app.now() - age, "here", "/backups/kpi.dump", 1))
    yield
    with well.dagster_engine.begin() as connection:
        note_dump(connection, LastDump(well.app.now(), "here", "/backups/kpi.dump", 1))


@fault("backups", "No dump was ever made", WARNING)
def no_dump(well: Well, patch: Patch) -> Iterator[None]:
    yield from _dump(well, None)


@fault("backups", "The last dump is 3 d 0 h old: /backups/kpi.dump on here", WARNING)
def an_old_dump(well: Well, patch: Patch) -> Iterator[None]:
    yield from _dump(well, timedelta(days=3, minutes=1))


@fault("backups", "The last dump is 8 d 0 h old")
def a_dump_of_last_week(well: Well, patch: Patch) -> Iterator[None]:
    yield from _dump(well, timedelta(days=8, minutes=1))


# The numbers.


@fault("freshness", "its numbers are 3 d")
def old_rows(well: Well, patch: Patch) -> Iterator[None]:
    move = "UPDATE client_metrics SET as_of = as_of {} '3 days' WHERE workspace = :it"
    well.sql(move.format("- interval"), it=well.client)
    yield
    well.sql(move.format("+ interval"), it=well.client)


@fault("syncs", "its answer was malformed")
def a_sync_that_failed(well: Well, patch: Patch) -> Iterator[None]:
    failed = SyncEntry(
        run_id="failed",
        workspace=well.client,
        first_date=days_ago(0),
        last_date=days_ago(0),
        error=f"{well.client}: its answer was malformed",
        key_used="workspace",
        api_calls=1,
        seconds=1.0,
        waiting_seconds=0.0,
        calling_seconds=1.0,
        finished_at=well.app.now(),
    )
    with well.app.engine.begin() as connection:
        store_entry(connection, failed)
    yield
    well.sql("DELETE FROM sync_log WHERE run_id = 'failed'")


@fault("checks", "complete: 1 of 3 clients has no rows.")
def a_check_that_fails(well: Well, patch: Patch) -> Iterator[None]:
    now = well.app.now()
    failed = StoredOutcome(
        "complete", "client_metrics", "ERROR", "1 of 3 clients has no rows.", [], 0,
        [well.client], now, now,
    )  # fmt: skip
    with well.app.engine.begin() as connection:
        store_outcomes(connection, [failed])
    yield
    with well.app.engine.begin() as connection:
        passed = StoredOutcome(
            "complete", "client_metrics", "WARN", "All is well.", [], 0, [], well.app.now(), None
        )
        store_outcomes(connection, [passed])
