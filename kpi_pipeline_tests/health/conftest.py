import pytest
from sqlalchemy import Engine

from kpi_pipeline.warehouse.vault import Vault
from kpi_pipeline_tests.health.support import Stock


@pytest.fixture
def stock(engine: Engine, vault: Vault) -> Stock:
    return Stock(engine, vault)
