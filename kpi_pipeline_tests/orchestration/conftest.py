from collections.abc import Iterator
from datetime import date

import pytest
from dagster import DagsterInstance
from dagster._core.storage.defs_state import DefsStateStorage
from pydantic import SecretStr
from sqlalchemy import URL, Engine

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.vault import Vault, new_secret_key
from kpi_pipeline.instances import format_instances
from kpi_pipeline.orchestration.partitions import sync_workspace_partitions
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.agency import open_agency
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver
from kpi_pipeline_tests.bison_sandbox.running import Stage, bison_on, options
from kpi_pipeline_tests.conftest import instance_of
from kpi_pipeline_tests.orchestration.desk import Desk
from kpi_pipeline_tests.orchestration.installation import (
    Installation,
    calm_zone,
    instance_in_files,
    temporary_instance,
)


@pytest.fixture(autouse=True)
def _closed_contexts() -> Iterator[None]:
    """A context that is not closed leaves its instance behind for whatever loads definitions next.

    Its folder is gone by then, and it is the next file that fails.
    """
    before = DefsStateStorage.get()
    yield
    assert DefsStateStorage.get() is before, "Open Dagster's contexts in a `with`."


@pytest.fixture(scope="session")
def shared_instance() -> Iterator[DagsterInstance]:
    with instance_in_files() as opened:
        yield opened


@pytest.fixture
def instance(shared_instance: DagsterInstance) -> DagsterInstance:
    """A Dagster without clients and without runs: for what only evaluates, a shared one does."""
    sync_workspace_partitions(shared_instance, [])
    return shared_instance


@pytest.fixture
def installation(
    database: URL,
    engine: Engine,
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Installation]:
    """26 clients today, as the environment describes them: the assets read it when they run."""
    zone = calm_zone()
    with (
        bison_on(stage, options(today=None, timezone=zone.key)) as bison,
        temporary_instance() as instance,
    ):
        bison.freeze(None)
        secret_key = new_secret_key()
        for name, value in {
            "KPI_DATABASE_URL": database.render_as_string(hide_password=False),
            "KPI_BISON_INSTANCES": format_instances([instance_of(bison)]),
            "KPI_BISON_CALLS_PER_SECOND": "0",
            "KPI_BISON_ATTEMPTS": "1",
            "KPI_SECRET_KEY": secret_key,
            "KPI_TIMEZONE": zone.key,
            "KPI_BISON_TIMEZONE": zone.key,
        }.items():
            monkeypatch.setenv(name, value)
        app = AppContext(load_settings(), engine, Vault(SecretStr(secret_key)))
        yield Installation(open_agency(app, bison, date(2020, 1, 1)), instance)


@pytest.fixture
def desk(installation: Installation, receiver: Receiver) -> Desk:
    return Desk(installation, receiver)
