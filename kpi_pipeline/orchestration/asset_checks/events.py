"""The checks of `webhook_events`: what came in counts, and what Email Bison counts came in."""

from collections.abc import Iterator

import dagster as dg

from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.asset_checks.specs import specs_of
from kpi_pipeline.orchestration.assets.heartbeat import heartbeat
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.assets.specs import WEBHOOK_EVENTS


@dg.multi_asset_check(specs=specs_of(WEBHOOK_EVENTS), can_subset=True, name="check_webhook_events")
def webhook_event_checks(
    context: dg.AssetCheckExecutionContext, app: AppResource
) -> Iterator[dg.AssetCheckResult]:
    """Do the checks of the events that are selected."""
    from kpi_pipeline.orchestration.asset_checks.check_run import done

    names = {key.name for key in context.selected_asset_check_keys}
    try:
        with heartbeat(context.run), app.opened() as opened:
            yield from done(opened, names, context.instance)
    except KpiError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
