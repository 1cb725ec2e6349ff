"""What the assets are handed: the deployment, opened for as long as a step runs."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from kpi_pipeline.deployment import Deployment, open_deployment
from kpi_pipeline.settings import load_settings


class DeploymentResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Opens the deployment that the environment describes, at run time and not at import."""

    @contextmanager
    def opened(self) -> Iterator[Deployment]:
        """Settings, database, vault and clock, until the block ends."""
        with open_deployment(load_settings()) as deployment:
            yield deployment
