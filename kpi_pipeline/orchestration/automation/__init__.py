"""Every schedule and sensor; they live in code and are on by default."""

from kpi_pipeline.orchestration.automation.alerts import build_alerts
from kpi_pipeline.orchestration.automation.alive import Automations
from kpi_pipeline.orchestration.automation.check_runs import build_ask_bison_again, build_rounds
from kpi_pipeline.orchestration.automation.clean_up import build_clean_up
from kpi_pipeline.orchestration.automation.event_retention import build_event_retention
from kpi_pipeline.orchestration.automation.schedules import build_schedules
from kpi_pipeline.orchestration.automation.splitting import build_splitting
from kpi_pipeline.orchestration.automation.summary import build_summary
from kpi_pipeline.orchestration.automation.webhook_events import build_webhook_events
from kpi_pipeline.settings import Settings


def build_automation(settings: Settings) -> Automations:
    """All schedules and sensors, for these settings."""
    rounds, after_sync = build_rounds(settings)
    return Automations(
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
