from pathlib import Path

import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.vault import Vault
from kpi_pipeline_tests.db.stocked import imported, record
from kpi_pipeline_tests.inbox.support import URLS, Agency


@pytest.fixture
def agency(engine: Engine, vault: Vault) -> Agency:
    """Two clients, Harbor (101) and Quay (102), without any facts."""
    imported(engine, vault, record(101, "Harbor"), record(102, "Quay"))
    return Agency(engine, vault)


@pytest.fixture
def one(agency: Agency) -> Agency:
    """The agency, with a single instance."""
    agency.urls = {"main": URLS["main"]}
    return agency


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where files of events are dropped; it does not exist yet."""
    return tmp_path / "events"
