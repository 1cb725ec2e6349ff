"""The checks of `webhook_events`: what came in counts, and what Email Bison counts came in."""

from collections.abc import Iterator

import dagster as dg

from kpi_pipeline.assets.resources import DeploymentResource
from kpi_pipeline.assets.specs import WEBHOOK_EVENTS
from kpi_pipeline.assets.watched import watched
from kpi_pipeline.checks.specs import specs_of
from kpi_pipeline.errors import KpiError


@dg.multi_asset_check(specs=specs_of(WEBHOOK_EVENTS), can_subset=True, name="check_webhook_events")
def webhook_event_checks(
    context: dg.AssetCheckExecutionContext, deployment: DeploymentResource
) -> Iterator[dg.AssetCheckResult]:
    """Do the checks of the events that are selected."""
    from kpi_pipeline.checks.rounds import done

    names = {key.name for key in context.selected_asset_check_keys}
    try:
        with watched(context.run), deployment.opened() as opened:
            yield from done(opened, names, context.instance)
    except KpiError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
