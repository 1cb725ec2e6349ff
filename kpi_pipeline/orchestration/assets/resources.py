"""What the assets are handed: the app, opened for as long as a step runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg

from kpi_pipeline.settings import load_settings

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext


class AppResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Opens the app that the environment describes, at run time and not at import."""

    @contextmanager
    def opened(self) -> Iterator["AppContext"]:
        """Settings, database, vault and clock, until the block ends."""
        # Imported late: Dagster's page and daemon load these definitions, and never do the work.
        from kpi_pipeline.app import open_app

        with open_app(load_settings(), patient=True) as app:
            yield app
