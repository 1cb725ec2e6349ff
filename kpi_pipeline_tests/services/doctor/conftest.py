from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from kpi_pipeline_tests.bison_sandbox.receiver import receiving
from kpi_pipeline_tests.bison_sandbox.running import Stage, bison_on, options
from kpi_pipeline_tests.cli.running import calm_zone
from kpi_pipeline_tests.databases import KeptDatabase, another_database
from kpi_pipeline_tests.services.doctor.installation import CLIENTS, Well, well_installation


@pytest.fixture(scope="module")
def _well(
    postgres: URL,
    _kept_dagster: KeptDatabase,
    stage: Stage,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Well]:
    of_dagster = postgres.set(database=_kept_dagster.template)
    sandbox = options(today=None, timezone=calm_zone().key, clients=CLIENTS)
    with (
        another_database(postgres) as database,
        another_database(of_dagster) as dagster_database,
        bison_on(stage, sandbox) as bison,
        receiving() as receiver,
    ):
        bison.freeze(None)
        folder = tmp_path_factory.mktemp("well")
        with well_installation(database, dagster_database, bison, receiver, folder) as made:
            yield made


@pytest.fixture
def well(_well: Well, monkeypatch: pytest.MonkeyPatch) -> Well:
    """An installation in which all is well; tests undo the faults that they make in it."""
    _well.sets(monkeypatch)
    return _well
