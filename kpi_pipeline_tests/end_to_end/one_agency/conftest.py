from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import URL

from kpi_pipeline_tests.end_to_end.running import RunningAgency, running_agency


@pytest.fixture(scope="package")
def agency(
    postgres: URL, administer: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningAgency]:
    """One agency for the files of this folder, through Dagster's real page and daemon."""
    with running_agency(postgres, administer, tmp_path_factory.mktemp("agency")) as agency:
        yield agency
