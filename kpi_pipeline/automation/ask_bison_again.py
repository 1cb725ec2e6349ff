"""What Email Bison did not answer is asked for again, so that an outage leaves nothing behind.

The syncs do so by themselves. What is asked for once a day, the list of workspaces and the month's
totals, would else be told as missing until the next night.
"""

from collections.abc import Iterator

import dagster as dg
from dagster import RunRequest, ScheduleEvaluationContext, SkipReason

from kpi_pipeline.assets.resources import DeploymentResource
from kpi_pipeline.assets.specs import REGISTRY
from kpi_pipeline.automation.rounds import round_of
from kpi_pipeline.checks.specs import TOTALS_CHECK
from kpi_pipeline.errors import KpiError
from kpi_pipeline.health.answers import lacks_answers
from kpi_pipeline.health.outcome import ASKING_BISON, Check
from kpi_pipeline.settings import Settings
from kpi_pipeline.warehouse.check_outcomes import read_outcomes


def build_ask_bison_again(settings: Settings) -> dg.ScheduleDefinition:
    """The schedule `ask_bison_again`."""

    @dg.schedule(
        name="ask_bison_again",
        cron_schedule="40 * * * *",
        execution_timezone=settings.timezone.key,
        target=dg.AssetSelection.assets(REGISTRY) | dg.AssetSelection.checks(TOTALS_CHECK),
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every hour: what Email Bison did not answer when it was asked for its list of "
        "workspaces, or for the month's totals.",
    )
    def ask_bison_again(
        context: ScheduleEvaluationContext, deployment: DeploymentResource
    ) -> list[RunRequest] | SkipReason:
        try:
            with deployment.opened() as opened, opened.engine.connect() as connection:
                outcomes = read_outcomes(connection, ASKING_BISON)
        except KpiError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        unanswered = [Check(it.name) for it in outcomes if lacks_answers(it.offenders)]
        tick = context.scheduled_execution_time.isoformat()
        return list(_requests(unanswered, tick)) or SkipReason("Email Bison has answered.")

    return ask_bison_again


def _requests(unanswered: list[Check], tick: str) -> Iterator[RunRequest]:
    if Check.REGISTRY_MATCHES_BISON in unanswered:
        yield RunRequest(run_key=f"again {tick} registry", asset_selection=[REGISTRY])
    if Check.TOTALS_MATCH_BISON in unanswered:
        yield round_of(f"again {tick}", [TOTALS_CHECK])
