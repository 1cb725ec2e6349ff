from collections.abc import Iterator

import pytest
from dagster import DagsterInstance
from dagster._core.storage.defs_state import DefsStateStorage
from sqlalchemy import URL

from kpi_pipeline.orchestration.partitions import WORKSPACE
from kpi_pipeline_tests.agency import agency_on
from kpi_pipeline_tests.bison_sandbox.running import Stage, bison_on, options
from kpi_pipeline_tests.cli.running import calm_zone
from kpi_pipeline_tests.orchestration.installation import (
    Installation,
    instance_in_files,
    temporary_instance,
)


@pytest.fixture(autouse=True)
def _closed_contexts() -> Iterator[None]:
    """A context that stays open leaves its deleted instance to the next file, which then fails."""
    before = DefsStateStorage.get()
    yield
    assert DefsStateStorage.get() is before, "Open Dagster's contexts in a `with`."


@pytest.fixture(scope="session")
def shared_instance() -> Iterator[DagsterInstance]:
    """The context of a schedule opens it once more, so it is in files."""
    with instance_in_files() as opened:
        yield opened


@pytest.fixture
def instance(shared_instance: DagsterInstance) -> DagsterInstance:
    """A Dagster without clients and runs; tests that only evaluate share it."""
    for run_id in shared_instance.get_run_ids():
        shared_instance.delete_run(run_id)
    for key in shared_instance.get_dynamic_partitions(WORKSPACE):
        shared_instance.delete_dynamic_partition(WORKSPACE, key)
    return shared_instance


@pytest.fixture
def installation(
    database: URL, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    """26 clients today, as the environment describes them: the assets read it when they run."""
    monkeypatch.setenv("KPI_BISON_ATTEMPTS", "1")
    with (
        bison_on(stage, options(today=None, timezone=calm_zone().key)) as bison,
        temporary_instance() as instance,
    ):
        bison.freeze(None)
        with agency_on(database, bison, monkeypatch) as agency:
            yield Installation(agency, instance)
