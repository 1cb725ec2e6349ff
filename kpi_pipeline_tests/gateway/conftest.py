from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import URL

from kpi_pipeline_tests.gateway.support import Running, fresh_database, running


@pytest.fixture(scope="module")
def served(
    postgres: URL, administer: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """One gateway for the tests of a file, each of which tells of leads of its own."""
    folder = tmp_path_factory.mktemp("gateway")
    with fresh_database(postgres, administer) as url, running(url, folder) as gateway:
        yield gateway
