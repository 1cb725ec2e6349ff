import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline_tests.db.stocked import imported, record
from kpi_pipeline_tests.inbox.support import Clients


@pytest.fixture
def clients(engine: Engine, vault: Vault) -> Clients:
    """Harbor (101) and Quay (102), without any facts."""
    imported(engine, vault, record(101, "Harbor"), record(102, "Quay"))
    return Clients(engine, vault)
