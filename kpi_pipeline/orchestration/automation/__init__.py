"""Every schedule and sensor; all are defined in code, and on by default."""

from kpi_pipeline.orchestration.automation.action_requests import build_request_sensor
from kpi_pipeline.orchestration.automation.alerts import build_alert_sensor
from kpi_pipeline.orchestration.automation.check_runs import (
    build_check_schedules,
    build_check_sensor,
    build_retry_schedule,
)
from kpi_pipeline.orchestration.automation.clean_up import build_clean_up_schedule
from kpi_pipeline.orchestration.automation.event_retention import build_event_retention_schedule
from kpi_pipeline.orchestration.automation.heartbeats import build_heartbeat_sensors
from kpi_pipeline.orchestration.automation.report_rows import build_report_sensor
from kpi_pipeline.orchestration.automation.retry_clients import build_retry_sensor
from kpi_pipeline.orchestration.automation.schedules import build_sync_schedules
from kpi_pipeline.orchestration.automation.state import SchedulesAndSensors
from kpi_pipeline.orchestration.automation.summary import build_summary_schedules
from kpi_pipeline.orchestration.automation.webhook_events import build_webhook_event_sensor
from kpi_pipeline.settings import Settings


def build_automation(settings: Settings) -> SchedulesAndSensors:
    """All schedules and sensors, for these settings."""
    return SchedulesAndSensors(
        schedules=[
            *build_sync_schedules(settings),
            *build_check_schedules(settings),
            build_retry_schedule(settings),
            build_clean_up_schedule(settings),
            build_event_retention_schedule(settings),
            *build_summary_schedules(settings),
        ],
        sensors=[
            build_retry_sensor(settings),
            build_webhook_event_sensor(),
            build_request_sensor(),
            build_report_sensor(),
            build_check_sensor(),
            build_alert_sensor(),
            *build_heartbeat_sensors(settings),
        ],
    )
