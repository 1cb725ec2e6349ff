"""Faults of this machine and of the KPI database."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

from kpi_pipeline.db.registry.vault import new_secret_key
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.services.doctor import database as database_checks
from kpi_pipeline.services.doctor import machine
from kpi_pipeline_tests.cli.running import address, closed_port
from kpi_pipeline_tests.databases import administer
from kpi_pipeline_tests.services.doctor.faults.fault import WARNING, Patch, fault, setting
from kpi_pipeline_tests.services.doctor.installation import Well

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
