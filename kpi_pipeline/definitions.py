"""What Dagster loads: the assets, the schedules, and how their runs are executed."""

import dagster as dg

from kpi_pipeline.assets.client_kpis import build_client_kpis
from kpi_pipeline.assets.client_registry import client_registry
from kpi_pipeline.assets.resources import DeploymentResource
from kpi_pipeline.assets.webhook_events import webhook_events
from kpi_pipeline.automation.alerts import build_alerts
from kpi_pipeline.automation.clean_up import build_clean_up
from kpi_pipeline.automation.event_retention import build_event_retention
from kpi_pipeline.automation.schedules import build_schedules
from kpi_pipeline.automation.splitting import build_splitting
from kpi_pipeline.automation.summary import build_summary
from kpi_pipeline.automation.webhook_events import build_webhook_events
from kpi_pipeline.business_days import business_date
from kpi_pipeline.checks.events import events_applied
from kpi_pipeline.clock import utc_now
from kpi_pipeline.partitions import kpi_grid
from kpi_pipeline.settings import Settings, load_settings


def build_definitions(settings: Settings) -> dg.Definitions:
    """All of Dagster's part of the pipeline, for these settings."""
    grid = kpi_grid(settings, business_date(utc_now(), settings.timezone))
    return dg.Definitions(
        assets=[client_registry, webhook_events, build_client_kpis(grid, settings)],
        asset_checks=[events_applied],
        schedules=[
            *build_schedules(settings),
            build_clean_up(settings),
            build_event_retention(settings),
            *build_summary(settings),
        ],
        sensors=[build_splitting(settings), build_webhook_events(), build_alerts()],
        resources={"deployment": DeploymentResource()},
        # A run is one step that works side by side by itself; a process for the step would only
        # add three seconds to each run.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Read the environment when Dagster loads the code, not when Python imports it."""
    return build_definitions(load_settings())
