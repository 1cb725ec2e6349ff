"""The sensor that alerts people about failing checks, syncs, runs, schedules and sensors.

The database holds the problems; only failed runs and ticks are read from Dagster. `alerts/` decides
who is notified of what, and when. That an evaluation ended is noted in the database, for those who
watch the alerts themselves (checks/alerting.py): a failing sensor cannot alert to its failure.
"""

from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import dagster as dg
from dagster import SensorEvaluationContext
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.alerts.sources import dagster_problems
from kpi_pipeline.checks.alerting import alerting_problems
from kpi_pipeline.db.alert_evaluations import store_evaluation
from kpi_pipeline.db.server.engine import reason_of
from kpi_pipeline.db.server.retry import is_away
from kpi_pipeline.domain.formatting import counted, moment
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.automation.failed_runs import failed_runs, failed_ticks
from kpi_pipeline.orchestration.failures import failure
from kpi_pipeline.parts import read_parts

if TYPE_CHECKING:
    from kpi_pipeline.alerts.evaluate import Evaluation
    from kpi_pipeline.app import AppContext

ALERT_SENSOR = "alert_sensor"


def build_alert_sensor() -> dg.SensorDefinition:
    """The sensor `alert_sensor`."""

    @dg.sensor(
        name=ALERT_SENSOR,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notifies the receivers of KPI_ALERT_URLS of each problem once, reminds them, "
        "and notifies them when it is resolved.",
    )
    def alert_sensor(context: SensorEvaluationContext, app: AppResource) -> dg.SensorResult:
        try:
            with app.opened() as opened:
                return evaluate_alerts(context, opened)
        except DBAPIError as error:
            if not is_away(error):
                raise
            # Not retried: receivers that were notified would be notified twice.
            raise failure(
                f"The database became unreachable ({reason_of(error)}); the next evaluation tries "
                "again."
            ) from None

    return alert_sensor


def evaluate_alerts(context: SensorEvaluationContext, app: "AppContext") -> dg.SensorResult:
    """One evaluation of the sensor.

    Raises:
        sqlalchemy.exc.DBAPIError: if the database becomes unreachable meanwhile.
    """
    from kpi_pipeline.alerts.delivery import receivers_of
    from kpi_pipeline.alerts.evaluate import evaluate
    from kpi_pipeline.alerts.given_up import given_up_problems
    from kpi_pipeline.alerts.receivers import receiver_problems

    runs, cursor = failed_runs(context.instance, app, context.cursor)
    ticks = failed_ticks(context.instance, _defined(context) - {ALERT_SENSOR})
    receivers = receivers_of(app.settings.alert_urls)
    with app.engine.connect() as connection:
        not_reached = alerting_problems(connection, app.now())
    names = {it.name for it in receivers}
    others = [
        *dagster_problems(runs, ticks),
        *receiver_problems(not_reached, names),
        *given_up_problems(read_parts(app.settings.state_dir)),
    ]
    result = evaluate(app, receivers, others)
    with app.engine.begin() as connection:
        store_evaluation(connection, app.now())
    return dg.SensorResult(skip_reason=dg.SkipReason(_summary(result, app.timezone)), cursor=cursor)


def _defined(context: SensorEvaluationContext) -> set[str]:
    """The schedules and sensors of this code: Dagster remembers others, removed long ago."""
    repository = context.repository_def
    if repository is None:
        return set()
    schedules = {it.name for it in repository.schedule_defs}
    return schedules | {it.name for it in repository.sensor_defs}


def _summary(result: "Evaluation", timezone: ZoneInfo) -> str:
    problems = counted(result.problems, "problem")
    if not result.receivers:
        return f"{problems}; KPI_ALERT_URLS names no receivers."
    notified = ", ".join(f"{name} of {count}" for name, count in sorted(result.notified.items()))
    parts = [f"{problems}; notified {notified}." if notified else f"{problems}."]
    parts += [
        f"{it.receiver} has failed since {moment(it.failing_since, timezone)}, and is tried again "
        f"after {it.next_try_at.astimezone(timezone):%H:%M:%S %Z}: see `kpi alerts test`."
        for it in result.failing
    ]
    return " ".join(parts)
