from collections.abc import Callable, Iterator
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr
from sqlalchemy import URL, Engine, text

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.engine import open_engine
from kpi_pipeline.db.tables import metadata
from kpi_pipeline.db.vault import Vault, new_secret_key
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.bison_sandbox.running import Bison, Stage, bison_on, options
from kpi_pipeline_tests.conftest import NOW, instance_of
from kpi_pipeline_tests.sync.support import Agency, open_agency
from kpi_pipeline_tests.sync.variants.cases import Scene
from kpi_pipeline_tests.sync.variants.checks import DATES, LATER, Right

_DATABASE = "kpi_variants"
_IMPORTED, _SYNCED = "imported", "synced"


class Installation:
    """A database whose rows can be put back to one of two moments; quicker than a new one each.

    At the first one the clients were imported, at the second one some of them synced as well.
    """

    def __init__(self, engine: Engine, stage: Stage) -> None:
        self._engine = engine
        self._vault = Vault(SecretStr(new_secret_key()))
        with bison_on(stage, options()) as bison:
            agency = open_agency(self._deployment(bison), bison)
            self._keep(_IMPORTED)
            agency.synced(DATES, Scene(agency, "all").clients)
            self._keep(_SYNCED)

    def later(self, moment: str, bison: Bison) -> Agency:
        """The agency at LATER, with the rows of that moment."""
        with self._engine.begin() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
            for table in metadata.sorted_tables:
                rows = f"INSERT INTO {table.name} SELECT * FROM {moment}.{table.name}"
                connection.execute(text(rows))
        return Agency(self._deployment(bison), bison).moved_to(LATER)

    def _keep(self, moment: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {moment}"))
            for table in metadata.sorted_tables:
                copy = f"CREATE TABLE {moment}.{table.name} AS TABLE {table.name}"
                connection.execute(text(copy))

    def _deployment(self, bison: Bison) -> AppContext:
        settings = Settings(
            bison_instances=(instance_of(bison),),
            bison_calls_per_second=0,
            bison_attempts=2,
            bison_timezone=ZoneInfo("America/Chicago"),
        )
        return AppContext(settings, self._engine, self._vault, lambda: NOW)


@pytest.fixture(scope="package")
def installation(
    postgres: URL, administer: Callable[[str], None], stage: Stage
) -> Iterator[Installation]:
    administer(f"CREATE DATABASE {_DATABASE} TEMPLATE {postgres.database}")
    engine = open_engine(postgres.set(database=_DATABASE))
    yield Installation(engine, stage)
    engine.dispose()
    administer(f"DROP DATABASE {_DATABASE} WITH (FORCE)")


@pytest.fixture
def first_night(installation: Installation, bison: Bison) -> Agency:
    """The agency at LATER, its clients imported, and nothing synced yet."""
    return installation.later(_IMPORTED, bison)


@pytest.fixture
def an_hour_later(installation: Installation, bison: Bison) -> Agency:
    """The agency at LATER, with what a sync at NOW stored of three of its clients."""
    return installation.later(_SYNCED, bison)


@pytest.fixture(scope="package")
def right() -> Right:
    return Right()
