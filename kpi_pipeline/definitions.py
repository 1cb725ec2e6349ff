"""What Dagster loads: the assets and their checks, the schedules and sensors, the executor."""

import warnings

import dagster as dg

from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.orchestration.assets.agency_totals import agency_totals
from kpi_pipeline.orchestration.assets.client_kpis import build_client_kpis
from kpi_pipeline.orchestration.assets.client_registry import client_registry
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.assets.webhook_events import webhook_event_checks, webhook_events
from kpi_pipeline.orchestration.automation import build_automation
from kpi_pipeline.orchestration.partitions import kpi_grid
from kpi_pipeline.settings import Settings, load_settings


def build_definitions(settings: Settings, app: AppResource | None = None) -> dg.Definitions:
    """All definitions, for these settings.

    `app` is the resource that runs open; the default opens what the environment describes.
    """
    # Dagster loads this without a database, and bounds the grid's end by this machine's clock, too.
    grid = kpi_grid(settings, business_date(utc_now(), settings.day_zone))
    automation = build_automation(settings)
    assets = [
        client_registry,
        webhook_events,
        build_client_kpis(grid, settings),
        agency_totals,
    ]
    with warnings.catch_warnings():
        # It is in beta, and would say so in the log of each run, four times.
        warnings.simplefilter("ignore", dg.BetaWarning)
        # Each asset's page leads to the file and line of its code.
        linked = dg.with_source_code_references(assets)
    return dg.Definitions(
        assets=linked,
        asset_checks=[webhook_event_checks],
        schedules=automation.schedules,
        sensors=automation.sensors,
        resources={"app": app or AppResource()},
        # A run is one step, which works on its clients concurrently. A process for the step would
        # only add three seconds to each run.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Read the environment when Dagster loads the code, not when Python imports it."""
    return build_definitions(load_settings())
