from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine

from kpi_pipeline_tests.bison_sandbox.running import Bison, Stage, bison_on, options
from kpi_pipeline_tests.cli.running import calm_zone
from kpi_pipeline_tests.gateway.support import (
    GatewayProcess,
    gateway_processes,
    point_to,
    stock_clients,
)


@pytest.fixture
def process(
    database: URL, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[GatewayProcess]:
    """A gateway as a process, ready, on the test's database with its clients."""
    stock_clients(engine)
    point_to(database, monkeypatch)
    with gateway_processes(tmp_path, 1) as [process]:
        yield process


@pytest.fixture
def bison(stage: Stage) -> Iterator[Bison]:
    """A sandbox that stands still at this moment, far from any midnight."""
    with bison_on(stage, options(today=None, timezone=calm_zone().key)) as fresh:
        fresh.freeze(datetime.now(UTC).isoformat())
        yield fresh
