from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.server.engine import open_engine


@pytest.fixture
def other_engine(engine: Engine) -> Iterator[Engine]:
    """Connections of their own to the test's database, as another process has them."""
    other = open_engine(engine.url)
    yield other
    other.dispose()
