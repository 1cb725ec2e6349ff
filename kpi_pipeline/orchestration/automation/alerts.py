"""The sensor that tells people what is wrong: checks, syncs, runs, schedules and sensors.

What is wrong is read from the tables, and from Dagster what it alone knows; who is told what is
decided in `alerting`.
"""

from typing import TYPE_CHECKING

import dagster as dg
from dagster import SensorEvaluationContext
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.alerts.sources import dagster_problems
from kpi_pipeline.db.engine import reason_of
from kpi_pipeline.db.retry import is_away
from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.automation.failures import failed_runs, failed_ticks

if TYPE_CHECKING:
    from kpi_pipeline.alerts.evaluate import Evaluation
    from kpi_pipeline.app import AppContext

ALERT_SENSOR = "alert_sensor"


def build_alerts() -> dg.SensorDefinition:
    """The sensor `alert_sensor`."""

    @dg.sensor(
        name=ALERT_SENSOR,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells the receivers of KPI_ALERT_URLS what is wrong, once, reminds them, and "
        "tells them when it is over.",
    )
    def alert_sensor(context: SensorEvaluationContext, app: AppResource) -> dg.SensorResult:
        try:
            with app.opened() as opened:
                return look_for_trouble(context, opened)
        except KpiError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        except DBAPIError as error:
            if not is_away(error):
                raise
            # Not done again here: whoever was told already would be told twice.
            raise dg.Failure(
                f"The database went away ({reason_of(error)}); the next look comes by itself.",
                allow_retries=False,
            ) from None

    return alert_sensor


def look_for_trouble(context: SensorEvaluationContext, app: "AppContext") -> dg.SensorResult:
    """One look of the sensor.

    Raises:
        sqlalchemy.exc.DBAPIError: if the database goes away meanwhile.
    """
    from kpi_pipeline.alerts.delivery import receivers_of
    from kpi_pipeline.alerts.evaluate import evaluate

    runs, cursor = failed_runs(context.instance, app, context.cursor)
    ticks = failed_ticks(context.instance, _known(context) - {ALERT_SENSOR})
    receivers = receivers_of(app.settings.alert_urls)
    came_of_it = evaluate(app, receivers, dagster_problems(runs, ticks))
    return dg.SensorResult(skip_reason=dg.SkipReason(_sentence(came_of_it)), cursor=cursor)


def _known(context: SensorEvaluationContext) -> set[str]:
    """The schedules and sensors of this code: Dagster remembers others, long gone."""
    repository = context.repository_def
    if repository is None:
        return set()
    schedules = {it.name for it in repository.schedule_defs}
    return schedules | {it.name for it in repository.sensor_defs}


def _sentence(result: "Evaluation") -> str:
    troubles = f"{result.problems} trouble{'' if result.problems == 1 else 's'}"
    if not result.receivers:
        return f"{troubles}; KPI_ALERT_URLS names nobody who could be told."
    told = ", ".join(f"{name} of {count}" for name, count in sorted(result.notified.items()))
    parts = [f"{troubles}; told {told}." if told else f"{troubles}."]
    parts += [
        f"{it.receiver} could not be reached since {it.failing_since:%Y-%m-%d %H:%M} UTC, and is "
        f"tried again after {it.next_try_at:%H:%M:%S}: see `kpi alerts test`."
        for it in result.failing
    ]
    return " ".join(parts)
