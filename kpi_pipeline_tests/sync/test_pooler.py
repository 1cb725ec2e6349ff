"""A night through a pooler in transaction mode: 6 of 8 clients once failed there."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import URL

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.sync.run import run_sync
from kpi_pipeline.sync.scope import PartitionBlock
from kpi_pipeline_tests.agency import Agency, errors, open_agency
from kpi_pipeline_tests.bison_sandbox.running import Stage, bison_on, options
from kpi_pipeline_tests.conftest import instance_of
from kpi_pipeline_tests.pgbouncer import Pooler


@pytest.fixture(params=[1, 2])
def agency(
    request: pytest.FixtureRequest, app: AppContext, database: URL, pgbouncer: Pooler, stage: Stage
) -> Iterator[Agency]:
    engine = open_engine(pgbouncer.through(database), pool_size=request.param)
    with bison_on(stage, options(clients=8)) as bison:
        settings = app.settings.model_copy(update={"bison_instances": (instance_of(bison),)})
        yield open_agency(replace(app, engine=engine, settings=settings), bison)
    engine.dispose()


def test_every_client_is_synced_whatever_the_pooler_does(agency: Agency) -> None:
    dates = [agency.today - timedelta(days=1), agency.today]
    for run in ("first", "second"):
        outcomes = run_sync(agency.app, PartitionBlock(agency.workspaces, dates), run_id=run)
        assert errors({it.workspace: it for it in outcomes}) == {}
    assert {(workspace, day) for workspace, day in agency.rows()} == {
        (workspace, day) for workspace in agency.workspaces for day in dates
    }
