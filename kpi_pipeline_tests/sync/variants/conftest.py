from collections.abc import Iterator
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr
from sqlalchemy import URL, Engine

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.registry.vault import Vault, new_secret_key
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.db.tables import metadata
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.agency import Agency, open_agency
from kpi_pipeline_tests.bison_sandbox.running import Bison, Stage, bison_on, options
from kpi_pipeline_tests.conftest import NOW, instance_of
from kpi_pipeline_tests.databases import another_database
from kpi_pipeline_tests.sync.variants.cases import DATES, LATER


class Installation:
    """A database whose rows can be reset to one of two moments; quicker than a new one each.

    At the moment `imported` the clients are imported, at `synced` all of them are synced as well.
    """

    def __init__(self, engine: Engine, stage: Stage) -> None:
        self._engine = engine
        self._vault = Vault(SecretStr(new_secret_key()))
        with bison_on(stage, options()) as bison:
            agency = open_agency(self._app(bison), bison)
            self._keep("imported")
            agency.synced(DATES)
            self._keep("synced")

    def later(self, moment: str, bison: Bison) -> Agency:
        """The agency at LATER, with the rows of that moment."""
        tables = [table.name for table in metadata.sorted_tables]
        deletes = [f"DELETE FROM {name}" for name in reversed(tables)]
        inserts = [f"INSERT INTO {name} SELECT * FROM {moment}.{name}" for name in tables]
        with self._engine.begin() as connection:
            connection.exec_driver_sql("; ".join(deletes + inserts))
        return Agency(self._app(bison), bison).moved_to(LATER)

    def _keep(self, moment: str) -> None:
        with self._engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA {moment}")
            for table in metadata.sorted_tables:
                copy = f"CREATE TABLE {moment}.{table.name} AS TABLE {table.name}"
                connection.exec_driver_sql(copy)

    def _app(self, bison: Bison) -> AppContext:
        settings = Settings(
            bison_instances=(instance_of(bison),),
            bison_calls_per_second=0,
            bison_attempts=2,
            bison_timezone=ZoneInfo("America/Chicago"),
        )
        return AppContext(settings, self._engine, self._vault, lambda: NOW)


@pytest.fixture(scope="package")
def installation(postgres: URL, stage: Stage) -> Iterator[Installation]:
    with another_database(postgres) as url:
        engine = open_engine(url)
        yield Installation(engine, stage)
        engine.dispose()


@pytest.fixture
def before_any_sync(installation: Installation, bison: Bison) -> Agency:
    """The agency at LATER, its clients imported, and nothing synced yet."""
    return installation.later("imported", bison)


@pytest.fixture
def an_hour_later(installation: Installation, bison: Bison) -> Agency:
    """The agency at LATER, with the rows that a sync of all clients stored at NOW."""
    return installation.later("synced", bison)
