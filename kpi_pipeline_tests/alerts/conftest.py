import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline_tests.alerts.support import Office, json_url
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver
from kpi_pipeline_tests.db.stocked import imported, record


@pytest.fixture
def office(engine: Engine, vault: Vault, receiver: Receiver) -> Office:
    """Three clients, and one receiver of alerts."""
    imported(engine, vault, record(101, "Acme"), record(102, "Birch"), record(103, "Cedar"))
    return Office(engine, vault, [json_url(receiver.url)])
