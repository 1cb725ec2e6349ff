import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline_tests.checks.support import Stock


@pytest.fixture
def stock(engine: Engine, vault: Vault) -> Stock:
    return Stock(engine, vault)
