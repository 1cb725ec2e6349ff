"""PostgreSQL is restarted while a sync is at work, and before one begins."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import URL
from starlette.types import ASGIApp, Receive, Scope, Send

from kpi_pipeline.app import AppContext, open_app
from kpi_pipeline.db.migrate import upgrade
from kpi_pipeline.db.server.engine import ensure_database, open_engine
from kpi_pipeline.db.sync_log import read_entries
from kpi_pipeline.errors import KpiError
from kpi_pipeline_tests.agency import SERIES, differences, errors, open_agency
from kpi_pipeline_tests.bison_sandbox.running import TODAY, Bison, Stage
from kpi_pipeline_tests.restartable import RestartableServer, restartable_server

pytestmark = pytest.mark.server

# For that long the server stays away.
_AWAY_SECONDS = 1.0


@pytest.fixture(scope="module")
def server() -> Iterator[RestartableServer]:
    with restartable_server() as server:
        yield server


@pytest.fixture(scope="module")
def restartable(server: RestartableServer) -> URL:
    """A database with the KPI tables on the server."""
    url = server.url.set(database="kpi")
    ensure_database(url)
    engine = open_engine(url)
    upgrade(engine)
    engine.dispose()
    return url


class Restart:
    """Lets calls through, and restarts the database at one of them."""

    def __init__(self, app: ASGIApp, server: RestartableServer, at: int) -> None:
        self._app = app
        self._server = server
        self._left = at
        self.under_way: threading.Timer | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") == SERIES:
            self._left -= 1
            if self._left == 0:
                self._server.stop()
                self.under_way = threading.Timer(_AWAY_SECONDS, self._server.start)
                self.under_way.start()
        await self._app(scope, receive, send)


def test_a_restart_in_the_middle_of_a_sync_costs_no_client_a_row(
    restartable: URL, server: RestartableServer, app: AppContext, bison: Bison, stage: Stage
) -> None:
    engine = open_engine(restartable)
    agency = open_agency(replace(app, engine=engine), bison)
    restart = Restart(stage.app, server, at=5)
    stage.app = restart
    dates = [TODAY - timedelta(days=1), TODAY]

    outcomes = agency.sync(dates, agency.workspaces, run_id="in between")

    assert restart.under_way is not None
    restart.under_way.join()
    assert errors(outcomes) == {}
    assert differences(agency.rows(), agency.expected(dates)) == []
    with engine.connect() as connection:
        entries = read_entries(connection, ["in between"])
    assert {entry.workspace for entry in entries} == set(agency.workspaces)
    engine.dispose()


def test_a_run_waits_for_a_database_that_is_being_restarted_and_a_command_does_not(
    restartable: URL, server: RestartableServer, app: AppContext
) -> None:
    address = SecretStr(restartable.render_as_string(hide_password=False))
    settings = app.settings.model_copy(update={"database_url": address})
    server.stop()
    with (
        pytest.raises(KpiError, match=r"cannot be reached: .* Check KPI_DATABASE_URL"),
        open_app(settings),
    ):
        pass
    starting = threading.Timer(_AWAY_SECONDS, server.start)
    starting.start()

    with open_app(settings, patient=True) as opened:
        opened.engine.connect().close()

    starting.join()
