"""The faults that the doctor knows, each as a context manager that makes it and undoes it."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from kpi_pipeline.db.alerts import FailingReceiver, forget_failing, store_failing
from kpi_pipeline.db.backup.record import LastDump, note_dump
from kpi_pipeline.db.check_results import StoredOutcome, store_outcomes
from kpi_pipeline.db.dagster_tables import DAEMON_CLAIM_KEY
from kpi_pipeline.db.registry.vault import new_secret_key
from kpi_pipeline.db.sync_log import SyncEntry, store_entry
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.instances import format_instances
from kpi_pipeline.orchestration.partitions import WORKSPACE
from kpi_pipeline.parts import Parts, PartState, PartStatus, write_parts
from kpi_pipeline.services.doctor import database as database_checks
from kpi_pipeline.services.doctor import machine
from kpi_pipeline.services.doctor.finding import Verdict
from kpi_pipeline.sync import webhook_probe
from kpi_pipeline_tests.cli.running import address, closed_port, days_ago
from kpi_pipeline_tests.conftest import instance_of
from kpi_pipeline_tests.databases import administer
from kpi_pipeline_tests.services.doctor.installation import Well

Patch = pytest.MonkeyPatch
Made = Callable[[Well, Patch], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """A fault, the check that names it, with what verdict, and words of what it says."""

    make: Made
    check: str
    words: str
    verdict: Verdict

    @property
    def name(self) -> str:
        """What it is called in the output of tests."""
        return self.make.__name__.replace("_", " ")


FAULTS: list[Fault] = []


def fault(
    check: str, words: str, verdict: Verdict = Verdict.PROBLEM
) -> Callable[[Callable[[Well, Patch], Iterator[None]]], None]:
    """Add the fault that the generator makes before its `yield`, and undoes after it."""

    def add(make: Callable[[Well, Patch], Iterator[None]]) -> None:
        @contextmanager
        def made(well: Well, patch: Patch) -> Iterator[None]:
            steps = make(well, patch)
            next(steps)
            try:
                yield
            finally:
                next(steps, None)

        made.__name__ = make.__name__
        FAULTS.append(Fault(made, check, words, verdict))

    return add


def setting(
    check: str, words: str, name: str, value: str, verdict: Verdict = Verdict.PROBLEM
) -> None:
    """Add the fault that a setting has this value."""

    def make(well: Well, patch: Patch) -> Iterator[None]:
        patch.setenv(name, value)
        yield

    make.__name__ = f"{name} is {value or 'unset'}"
    fault(check, words, verdict)(make)


WARNING = Verdict.WARNING

# This machine.

setting("settings", "KPI_TIMEZON (in the environment) is not a setting", "KPI_TIMEZON", "UTC")
setting("settings", "KPI_FRESH_BY: ", "KPI_FRESH_BY", "noon")
setting("secret-key", "KPI_SECRET_KEY is no Fernet key", "KPI_SECRET_KEY", "made-up")


@fault("state-folder", "is a file. Move it away. Or set KPI_STATE_DIR")
def a_file_in_place_of_the_state_folder(well: Well, patch: Patch) -> Iterator[None]:
    file = well.folder / "file"
    file.touch()
    patch.setenv("KPI_STATE_DIR", str(file))
    yield


@fault("file-modes", "Other users of this machine can read")
def a_settings_file_that_others_can_read(well: Well, patch: Patch) -> Iterator[None]:
    file = well.folder / "some.env"
    file.touch(mode=0o644)
    patch.setenv("KPI_ENV_FILE", str(file))
    yield


@fault("file-modes", "Other users of this machine can read")
def a_secret_key_that_others_can_read(well: Well, patch: Patch) -> Iterator[None]:
    file = Path(well.environment["KPI_STATE_DIR"], "secret.key")
    file.touch(mode=0o640)
    yield
    file.unlink()


@fault("disk", "has 0.5 GB left", WARNING)
def little_space(well: Well, patch: Patch) -> Iterator[None]:
    patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=500_000_000))
    yield


@fault("disk", "has 0.0 GB left")
def no_space(well: Well, patch: Patch) -> Iterator[None]:
    patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000))
    yield


@fault("versions", "httpx 0.27.0 (needed: <0.29,>=0.28)")
def an_old_library(well: Well, patch: Patch) -> Iterator[None]:
    place = f"{machine.__name__}.version"
    patch.setattr(place, lambda it: "0.27.0" if it == "httpx" else version(it))
    yield


# The KPI database.


@fault("database", "cannot be reached")
def a_database_that_is_away(well: Well, patch: Patch) -> Iterator[None]:
    patch.setenv("KPI_DATABASE_URL", f"postgresql://nobody@127.0.0.1:{closed_port()}/kpi")
    yield


@fault("database", "is behind this version of the code")
def tables_of_an_earlier_version(well: Well, patch: Patch) -> Iterator[None]:
    with well.app.engine.connect() as connection:
        (current,) = connection.exec_driver_sql("SELECT version_num FROM alembic_version").one()
    well.sql("UPDATE alembic_version SET version_num = '0019'")
    yield
    well.sql("UPDATE alembic_version SET version_num = :it", it=current)


@fault("database", "is read-only, as a standby or by its settings")
def a_database_that_is_read_only(well: Well, patch: Patch) -> Iterator[None]:
    url = well.app.engine.url
    administer(url, f"ALTER DATABASE {url.database} SET default_transaction_read_only = on")
    yield
    administer(url, f"ALTER DATABASE {url.database} RESET default_transaction_read_only")


@fault("database", "The pipeline is made for PostgreSQL 14 to 16: use one of these", WARNING)
def a_server_that_is_too_new(well: Well, patch: Patch) -> Iterator[None]:
    patch.setattr(database_checks, "NEWEST", 16)
    yield


@fault("tables", "1 KPI table is missing in the schema public: web_sessions")
def a_table_that_is_gone(well: Well, patch: Patch) -> Iterator[None]:
    well.sql("ALTER TABLE web_sessions RENAME TO gone")
    yield
    well.sql("ALTER TABLE gone RENAME TO web_sessions")


def _plain_role(well: Well, patch: Patch, *grants: str) -> Iterator[None]:
    """Have the doctor work as another role, which has these rights alone."""
    url = well.app.engine.url
    administer(url, "CREATE ROLE doctor_plain LOGIN")
    for it in grants:
        well.sql(f"GRANT {it} TO doctor_plain")
    patch.setenv("KPI_DATABASE_URL", address(url.set(username="doctor_plain")))
    yield
    well.sql("DROP OWNED BY doctor_plain")
    administer(url, "DROP ROLE doctor_plain")


_ALL = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public"


@fault("rights", "it lacks DELETE, UPDATE on action_requests")
def a_role_without_a_right(well: Well, patch: Patch) -> Iterator[None]:
    yield from _plain_role(well, patch, "SELECT, INSERT ON ALL TABLES IN SCHEMA public")


@fault("rights", "can't upgrade the tables: they belong to", WARNING)
def tables_of_another_owner(well: Well, patch: Patch) -> Iterator[None]:
    yield from _plain_role(well, patch, _ALL, "USAGE ON ALL SEQUENCES IN SCHEMA public")


@fault("exposure", "doctor_anon has rights on ")
def a_host_that_grants_to_an_anonymous_role(well: Well, patch: Patch) -> Iterator[None]:
    url = well.app.engine.url
    administer(url, "CREATE ROLE doctor_anon")
    well.sql("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO doctor_anon")
    well.sql("GRANT SELECT ON client_api_keys TO doctor_anon")
    yield
    well.sql("DROP OWNED BY doctor_anon")
    well.sql("ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE SELECT ON TABLES FROM doctor_anon")
    administer(url, "DROP ROLE doctor_anon")


@fault("connections", "leaves this role 9 connections", WARNING)
def few_connections(well: Well, patch: Patch) -> Iterator[None]:
    url = well.app.engine.url
    administer(url, f"ALTER DATABASE {url.database} CONNECTION LIMIT 9")
    yield
    administer(url, f"ALTER DATABASE {url.database} CONNECTION LIMIT -1")


@fault("direct-url", "is another database than that of KPI_DATABASE_URL")
def a_direct_address_of_another_database(well: Well, patch: Patch) -> Iterator[None]:
    other = well.app.engine.url.set(database="postgres")
    patch.setenv("KPI_DATABASE_DIRECT_URL", address(other))
    yield


@fault("clock", "The clock of this machine is 1 h 0 min ahead of that of the database", WARNING)
def a_clock_that_runs_ahead(well: Well, patch: Patch) -> Iterator[None]:
    patch.setattr(database_checks, "utc_now", lambda: utc_now() + timedelta(hours=1, seconds=5))
    yield


@fault("dates", "and the settings now say Etc/GMT+1")
def another_zone_than_that_of_the_dates(well: Well, patch: Patch) -> Iterator[None]:
    patch.setenv("KPI_BISON_TIMEZONE", "Etc/GMT+1")
    yield


@fault("stored-keys", "can't be decrypted: ")
def another_secret_key(well: Well, patch: Patch) -> Iterator[None]:
    patch.setenv("KPI_SECRET_KEY", new_secret_key())
    yield


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


# Email Bison and the clients.


def _instances(well: Well, patch: Patch, url: str = "", key: str = "") -> None:
    found = instance_of(well.bison)
    instances = format_instances([found])
    if url:
        instances = instances.replace(found.url, url)
    if key:
        instances = instances.replace(well.bison.master_key, key)
    patch.setenv("KPI_BISON_INSTANCES", instances)


@fault("bison", "Check that Email Bison is up and its address")
def an_email_bison_that_is_away(well: Well, patch: Patch) -> Iterator[None]:
    _instances(well, patch, url=f"http://127.0.0.1:{closed_port()}")
    yield


@fault("bison", "Give the instance a valid super-admin key")
def a_master_key_that_is_rejected(well: Well, patch: Patch) -> Iterator[None]:
    _instances(well, patch, key=f"7|{'Made0Up0' * 6}")
    yield


setting("bison", "No Email Bison is configured", "KPI_BISON_INSTANCES", "")


@fault("clients", "There is no active client")
def no_client(well: Well, patch: Patch) -> Iterator[None]:
    well.sql("UPDATE clients SET active = false")
    yield
    well.sql("UPDATE clients SET active = true")


@fault("clients", "emea, the instance of ")
def a_client_of_an_instance_that_is_not_configured(well: Well, patch: Patch) -> Iterator[None]:
    update = "UPDATE clients SET instance = :to WHERE workspace = :it"
    well.sql(update, to="emea", it=well.client)
    yield
    well.sql(update, to="main", it=well.client)


@fault("workspaces", "Email Bison no longer has the workspace of ")
def a_workspace_that_is_gone(well: Well, patch: Patch) -> Iterator[None]:
    well.agency.delete(well.client)
    yield
    well.agency.control("POST", f"workspaces/{well.agency.ids[well.client]}/restore")


@fault("workspaces", "1 workspace of Email Bison without a client: New Agency", WARNING)
def a_workspace_without_a_client(well: Well, patch: Patch) -> Iterator[None]:
    made = well.agency.control("POST", "workspaces", name="New Agency").json()
    yield
    well.agency.control("DELETE", f"workspaces/{made['id']}")


@fault("keys", "`kpi keys rotate ")
def a_key_that_was_revoked(well: Well, patch: Patch) -> Iterator[None]:
    well.agency.revoke(well.client)
    yield
    well.agency.restore(well.client)


@fault("keys", "the key belongs to workspace")
def a_key_of_another_workspace(well: Well, patch: Patch) -> Iterator[None]:
    own, *others = well.agency.ids.values()
    number = well.agency.ids[well.client]
    other = next(it for it in (own, *others) if it != number)
    well.agency.control("POST", "keys/move", workspace_id=number, to=other)
    yield
    well.agency.control("POST", "keys/move", workspace_id=number, to=number)


@fault("targets", "1 client without a target for ", WARNING)
def a_client_without_a_target(well: Well, patch: Patch) -> Iterator[None]:
    move = "UPDATE client_targets SET holds_from = holds_from {} '30 years' WHERE workspace = :it"
    well.sql(move.format("+ interval"), it=well.client)
    yield
    well.sql(move.format("- interval"), it=well.client)


@fault("partitions", "Dagster has no partition of ")
def a_client_without_a_partition(well: Well, patch: Patch) -> Iterator[None]:
    well.dagster.delete_dynamic_partition(WORKSPACE, well.client)
    yield
    well.dagster.add_dynamic_partitions(WORKSPACE, [well.client])


@fault("partitions", "Dagster has partitions of gone, which are no active clients", WARNING)
def a_partition_without_a_client(well: Well, patch: Patch) -> Iterator[None]:
    well.dagster.add_dynamic_partitions(WORKSPACE, ["gone"])
    yield
    well.dagster.delete_dynamic_partition(WORKSPACE, "gone")


@fault("partitions", "Dagster's grid shows 2 of them: run `kpi dagster rebuild`", WARNING)
def a_row_that_the_grid_lacks(well: Well, patch: Patch) -> Iterator[None]:
    rename = "UPDATE event_logs SET partition = :to WHERE partition = :it"
    lacking = {"it": f"{days_ago(1)}|{well.client}", "to": f"{days_ago(1)}|none"}
    well.dagster_sql(rename, **lacking)
    yield
    well.dagster_sql(rename, it=lacking["to"], to=lacking["it"])


# Events.


def _hooks(well: Well) -> list[dict[str, object]]:
    key = well.agency.key(well.client)
    return list(well.bison.data("/api/webhook-url", key=key))


def _register(well: Well, url: str, *events: str) -> int:
    """Register a webhook of the client; its id."""
    body = {"name": "kpi", "url": url, "events": events}
    key = well.agency.key(well.client)
    made = well.bison.call("POST", "/api/webhook-url", key=key, json=body)
    assert made.status_code == 201, made.text
    return int(made.json()["data"]["id"])


def _delete(well: Well, number: object) -> None:
    key = well.agency.key(well.client)
    gone = well.bison.call("DELETE", f"/api/webhook-url/{number}", key=key)
    assert gone.is_success, gone.text


@fault("webhooks", "Webhooks are missing in 1 workspace: ")
def a_webhook_that_was_deleted(well: Well, patch: Patch) -> Iterator[None]:
    (hook,) = _hooks(well)
    _delete(well, hook["id"])
    yield
    # A fix may have registered it.
    if not _hooks(well):
        _register(well, str(hook["url"]), *hook["events"])  # type: ignore[misc]


@fault("webhooks", "Webhooks are dead in 1 workspace: ", WARNING)
def a_webhook_with_an_old_secret(well: Well, patch: Patch) -> Iterator[None]:
    url = f"{well.environment['KPI_GATEWAY_URL']}/webhooks/bison/{'old' * 10}"
    number = _register(well, url, "lead_interested")
    yield
    _delete(well, number)


@fault("endpoint", "what answers at")
def a_proxy_that_does_not_forward(well: Well, patch: Patch) -> Iterator[None]:
    yield from _shut(well, patch, 404)


@fault("endpoint", "answers with a redirect (301)")
def a_proxy_that_redirects(well: Well, patch: Patch) -> Iterator[None]:
    yield from _shut(well, patch, 301)


def _shut(well: Well, patch: Patch, status: int) -> Iterator[None]:
    patch.setattr(webhook_probe, "WAIT_SECONDS", 0.0)
    well.door.shut = status
    yield
    well.door.shut = None


@fault("feed", "GET /api/events")
def a_feed_that_fails(well: Well, patch: Patch) -> Iterator[None]:
    number = well.bison.fault("status", status=403, path="/api/events")
    yield
    well.agency.control("DELETE", f"faults/{number}")


@fault("feed", "The last reading of the feed of ", WARNING)
def a_feed_that_was_not_read_to_its_end(well: Well, patch: Patch) -> Iterator[None]:
    well.sql(
        "INSERT INTO event_feed (workspace, event_type, tried_at, problem) "
        "VALUES (:it, 'lead_interested', now(), 'its feed has more than 600 rows')",
        it=well.client,
    )
    yield
    well.sql("DELETE FROM event_feed")


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
