"""The resource `app`: what a run or a tick needs of the installation."""

from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

from kpi_pipeline.orchestration.failures import kpi_errors_as_failures
from kpi_pipeline.settings import load_settings

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext


class AppResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Opens the app that the environment describes, at run time and not at import."""

    @contextmanager
    def opened(self) -> Iterator["AppContext"]:
        """Settings, database, vault and clock, until the block ends.

        Raises:
            dg.Failure: in place of any KpiError, of the opening or of the block.
        """
        # Imported late: Dagster's page and daemon load these definitions, and never do the work.
        from kpi_pipeline.app import open_app
        from kpi_pipeline.orchestration.runtime.databases import with_database

        with (
            kpi_errors_as_failures(),
            open_app(with_database(load_settings()), patient=True) as app,
        ):
            yield app

    def active_workspaces(self) -> Container[str]:
        """The workspaces of the active clients.

        Raises:
            dg.Failure: if the app can't be opened.
            sqlalchemy.exc.DBAPIError: if the database becomes unreachable meanwhile.
        """
        from kpi_pipeline.db.registry.clients import active_clients

        with self.opened() as app, app.engine.connect() as connection:
            return {client.workspace for client in active_clients(connection)}
