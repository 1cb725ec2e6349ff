from collections.abc import Iterator

import pytest
from sqlalchemy import URL

from kpi_pipeline_tests.databases import another_database
from kpi_pipeline_tests.gateway.support import Running, running


@pytest.fixture(scope="module")
def served(postgres: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One gateway for the tests of a file, each of which tells of leads of its own."""
    folder = tmp_path_factory.mktemp("gateway")
    with another_database(postgres) as url, running(url, folder) as gateway:
        yield gateway
