"""However many clients are fetched side by side, a run needs no more connections than its pool."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import URL, event

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.sync.run import run_sync
from kpi_pipeline.sync.scope import BackfillScope, PartitionBlock
from kpi_pipeline_tests.agency import Agency, errors, open_agency
from kpi_pipeline_tests.bison_sandbox.running import Stage, bison_on, options
from kpi_pipeline_tests.conftest import NOW, instance_of

CLIENTS, POOL = 64, 8


class Connections:
    """How many connections are open, and were at most."""

    def __init__(self) -> None:
        self.open = self.most = 0

    def opened(self, *_: Any) -> None:
        self.open += 1
        self.most = max(self.most, self.open)

    def closed(self, *_: Any) -> None:
        self.open -= 1


@pytest.fixture
def connections() -> Connections:
    return Connections()


@pytest.fixture
def agency(
    app: AppContext, database: URL, stage: Stage, connections: Connections
) -> Iterator[Agency]:
    """64 clients, all of which may be fetched at once, through a pool of eight connections."""
    engine = open_engine(database, pool_size=POOL)
    event.listen(engine, "connect", connections.opened)
    event.listen(engine, "close", connections.closed)
    with bison_on(stage, options(clients=CLIENTS)) as bison:
        changed = {"bison_instances": (instance_of(bison),), "bison_concurrency": CLIENTS}
        settings = app.settings.model_copy(update=changed)
        yield open_agency(replace(app, engine=engine, settings=settings), bison)
    engine.dispose()


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "kind", [pytest.param("of a backfill", marks=pytest.mark.long), "of every night"]
)
def test_sixty_four_fetches_side_by_side_need_the_eight_connections_of_the_pool(
    agency: Agency, connections: Connections, kind: str
) -> None:
    assert len(agency.workspaces) == CLIENTS
    yesterday = agency.today - timedelta(days=1)
    scope = BackfillScope(NOW, yesterday, yesterday) if kind == "of a backfill" else None
    dates = [yesterday] if scope else [yesterday, agency.today]
    block = PartitionBlock(agency.workspaces, dates, scope)

    outcomes = run_sync(agency.app, block, run_id="a run")

    assert errors({it.workspace: it for it in outcomes}) == {}
    assert {(workspace, day) for workspace, day in agency.rows()} == {
        (workspace, day) for workspace in agency.workspaces for day in dates
    }
    assert 1 < connections.most <= POOL
