"""Every schedule and sensor: what Dagster is given, and what `automation_alive` looks for."""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from kpi_pipeline.automation.alerts import build_alerts
from kpi_pipeline.automation.ask_bison_again import build_ask_bison_again
from kpi_pipeline.automation.clean_up import build_clean_up
from kpi_pipeline.automation.event_retention import build_event_retention
from kpi_pipeline.automation.rounds import build_rounds
from kpi_pipeline.automation.schedules import build_schedules
from kpi_pipeline.automation.splitting import build_splitting
from kpi_pipeline.automation.summary import build_summary
from kpi_pipeline.automation.webhook_events import build_webhook_events
from kpi_pipeline.settings import Settings


@dataclass(frozen=True)
class Everything:
    """What goes on by itself."""

    schedules: Sequence[dg.ScheduleDefinition]
    sensors: Sequence[dg.SensorDefinition]


def build_everything(settings: Settings) -> Everything:
    """All schedules and sensors, for these settings."""
    rounds, after_sync = build_rounds(settings)
    return Everything(
        schedules=[
            *build_schedules(settings),
            *rounds,
            build_ask_bison_again(settings),
            build_clean_up(settings),
            build_event_retention(settings),
            *build_summary(settings),
        ],
        sensors=[
            build_splitting(settings),
            build_webhook_events(),
            after_sync,
            build_alerts(),
        ],
    )
