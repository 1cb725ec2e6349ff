import os
from collections.abc import Callable, Iterator, Sequence
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr
from sqlalchemy import URL, Engine

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.engine import open_engine
from kpi_pipeline.db.tables import metadata
from kpi_pipeline.db.vault import Vault, new_secret_key
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.agency import Agency, open_agency
from kpi_pipeline_tests.bison_sandbox.running import Bison, Stage, bison_on, options
from kpi_pipeline_tests.conftest import NOW, instance_of
from kpi_pipeline_tests.sync.variants.scenes import DATES, LATER, Case, Night, Nights, Right

_DATABASE = f"kpi_variants_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
_IMPORTED, _SYNCED = "imported", "synced"


class Installation:
    """A database whose rows can be reset to one of two moments; quicker than a new one each.

    At the first moment the clients are imported, at the second one all of them are synced as well.
    """

    def __init__(self, engine: Engine, stage: Stage) -> None:
        self._engine = engine
        self._stage = stage
        self._vault = Vault(SecretStr(new_secret_key()))
        with bison_on(stage, options()) as bison:
            agency = open_agency(self._app(bison), bison)
            self._keep(_IMPORTED)
            agency.synced(DATES)
            self._keep(_SYNCED)

    def later(self, moment: str, bison: Bison) -> Agency:
        """The agency at LATER, with the rows of that moment."""
        tables = [table.name for table in metadata.sorted_tables]
        deletes = [f"DELETE FROM {name}" for name in reversed(tables)]
        inserts = [f"INSERT INTO {name} SELECT * FROM {moment}.{name}" for name in tables]
        with self._engine.begin() as connection:
            connection.exec_driver_sql("; ".join(deletes + inserts))
        return Agency(self._app(bison), bison).moved_to(LATER)

    def nights(self, moment: str, cases: Sequence[Case], right: Right) -> Nights:
        """The nights of these cases, over the rows of that moment."""

        def night(some: Sequence[Case]) -> Night:
            with bison_on(self._stage, options()) as bison:
                return Night(self.later(moment, bison), some, right)

        return Nights(cases, night)

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
    """The agency at LATER, with the rows that a sync of all clients stored at NOW."""
    return installation.later(_SYNCED, bison)


@pytest.fixture(scope="package")
def right() -> Right:
    return Right()


@pytest.fixture(scope="module")
def nights(request: pytest.FixtureRequest, installation: Installation, right: Right) -> Nights:
    """The module's CASES in nights an hour after a sync."""
    return installation.nights(_SYNCED, request.module.CASES, right)


@pytest.fixture(scope="module")
def first_nights(
    request: pytest.FixtureRequest, installation: Installation, right: Right
) -> Nights:
    """The module's CASES that fail, in the first night of their clients."""
    failing = [case for case in request.module.CASES if case.said]
    return installation.nights(_IMPORTED, failing, right)
