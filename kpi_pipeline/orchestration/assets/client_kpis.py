"""The assets raw_bison_stats → kpi_projections → client_metrics and their checks, in one step.

One step, because a client's rows of all three are one transaction, and because Dagster skips what
is downstream of a failed step: in steps of their own, one client's rejected API key would keep
every other client's numbers from the dashboard. When some clients fail, the partitions of the
others turn green, those of the failed ones red, and the run fails and names them.

The checks are part of the step, too: Dagster would skip them whenever a client fails. A run that
only checks executes this step without filling anything.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from kpi_pipeline.domain.calendar import business_date
from kpi_pipeline.domain.formatting import counted
from kpi_pipeline.domain.outside_names import for_markdown, visible
from kpi_pipeline.orchestration.asset_checks.specs import TOTALS_CHECK, specs_of
from kpi_pipeline.orchestration.assets.partition_metadata import (
    instance_urls,
    materializations,
    partition,
)
from kpi_pipeline.orchestration.assets.progress import ProgressLog
from kpi_pipeline.orchestration.assets.requested import requested
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.assets.specs import kpi_specs
from kpi_pipeline.orchestration.dagster_private import log_materializations, log_planned
from kpi_pipeline.orchestration.nightly_sync import (
    LONGEST_WAIT,
    LONGEST_WAIT_OF_ROUND,
    after_due_sync,
)
from kpi_pipeline.orchestration.partitions import GRID_ASSETS, block_of
from kpi_pipeline.orchestration.runs import BACKFILL, FILLING_STEP
from kpi_pipeline.settings import Settings
from kpi_pipeline.sync.scope import KpiAsset

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext
    from kpi_pipeline.sync.run import ClientOutcome


class FillConfig(dg.Config):
    """The run config of the step; without one, facts are fetched."""

    fetch: bool = Field(
        default=True,
        description="true: fetch the daily facts from Email Bison, and compute projections and "
        "metrics from them. false: make no call, and compute projections and metrics again from "
        "the stored facts, events and targets.",
    )


def build_client_kpis(
    grid: dg.MultiPartitionsDefinition, settings: Settings
) -> dg.AssetsDefinition:
    """The three assets over `grid`: any block of them can be materialized, from the page of each.

    Whichever is selected, the rows of all three are made right, and their partitions turn green or
    red together. The step logs that itself, and yields no result for an asset.
    """

    @dg.multi_asset(
        specs=kpi_specs(settings),
        check_specs=specs_of(*GRID_ASSETS),
        partitions_def=grid,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
        name=FILLING_STEP,
    )
    def client_kpis(
        context: dg.AssetExecutionContext, app: AppResource, config: FillConfig
    ) -> Iterator[dg.AssetCheckResult]:
        with app.opened() as opened:
            fills = bool(context.selected_asset_keys)
            failed = _fill(context, opened, fetch=config.fetch) if fills else None
            yield from _check(context, opened)
        if failed is not None:
            raise failed

    return client_kpis


def _fill(
    context: dg.AssetExecutionContext, app: "AppContext", *, fetch: bool
) -> dg.Failure | None:
    """Fill the run's partitions and log their materializations; return the failure to raise."""
    # Imported late: loading the definitions needs none of it.
    from kpi_pipeline.sync.run import run_sync

    block = block_of(context)
    partitions = [
        partition(workspace, day) for workspace in block.workspaces for day in block.dates
    ]
    selected = {KpiAsset(key.to_user_string()) for key in context.selected_asset_keys}
    # Without a fetch, nothing new is known of the facts. A backfill of them would wait in vain.
    assets = [it for it in KpiAsset if fetch or it is not KpiAsset.FACTS or it in selected]
    # Dagster planned the selected assets. If the run fails, or its process dies, the page shows
    # what was planned and not materialized as failed.
    for asset in assets:
        if asset not in selected:
            log_planned(context, dg.AssetKey(asset.value), partitions)
    urls = instance_urls(app)

    def log_filled(outcomes: Sequence["ClientOutcome"]) -> None:
        # Dagster logs materializations when a step ends, and those of a failed step not at all; and
        # `context.add_asset_metadata` reads the whole range for each partition: 2,808 took 23 s.
        for asset in assets:
            log_materializations(context, materializations(asset, outcomes, urls))

    def report(outcome: "ClientOutcome") -> None:
        if outcome.skipped is not None:
            context.log.warning(outcome.skipped)
        elif outcome.error is None:
            context.log.info(_log_line(outcome))
            progress.add(outcome)
        else:
            context.log.error(outcome.error)
        if outcome.warning is not None:
            context.log.warning(outcome.warning)

    with requested(context.run, app), ProgressLog(log_filled) as progress:
        run_id = context.run.run_id
        done = run_sync(app, block, fetch=fetch, run_id=run_id, on_done=report)
    outcomes = [outcome for outcome in done if outcome.skipped is None]
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    return _failure(outcomes, failed) if failed else None


def _check(context: dg.AssetExecutionContext, app: "AppContext") -> Iterator[dg.AssetCheckResult]:
    """Do the selected checks: Dagster selects all of them with what is materialized.

    A run that fills partitions reads no totals from Email Bison: a sync makes no calls but those
    for its facts. A run of a backfill does no check: half of the backfill's rows are still to come,
    and a run of checks follows when all are written.
    """
    from kpi_pipeline.orchestration.asset_checks.execution import (
        check_totals,
        last_results,
        run_checks,
    )

    names = {key.name for key in context.selected_asset_check_keys}
    fills = bool(context.selected_asset_keys)
    if fills and BACKFILL in context.run.tags:
        yield from last_results(app, names)
        return
    alone = names == {TOTALS_CHECK.name}
    longest = LONGEST_WAIT if alone else LONGEST_WAIT_OF_ROUND
    tick, note = after_due_sync(context, app, longest)
    yield from run_checks(app, names, context.instance)
    if TOTALS_CHECK.name not in names:
        return
    if fills:
        yield from last_results(app, [TOTALS_CHECK.name])
        return
    today = app.today() if tick is None else business_date(tick, app.day_zone)
    yield from check_totals(app, today, note)


def _log_line(outcome: "ClientOutcome") -> str:
    if outcome.key_used is None:
        return f"{outcome.workspace}: {outcome.seconds:.1f} s"
    return (
        f"{outcome.workspace}: {outcome.key_used} key, {counted(outcome.api_calls, 'call')}, "
        f"{outcome.seconds:.1f} s ({outcome.waiting_seconds:.1f} s waiting for a slot, "
        f"{outcome.calling_seconds:.1f} s in calls)"
    )


def _failure(outcomes: Sequence["ClientOutcome"], failed: Sequence["ClientOutcome"]) -> dg.Failure:
    others = len(outcomes) - len(failed)
    reasons = [outcome.error or "" for outcome in failed]
    rest = f"; the rows of the other{'s' if others > 1 else ''} are written" if others else ""
    return dg.Failure(
        f"{len(failed)} of {counted(len(outcomes), 'client')} failed{rest}.\n"
        + "\n".join(f"- {visible(it)}" for it in reasons),
        metadata={
            "failed": dg.MetadataValue.md("\n".join(f"- {for_markdown(it)}" for it in reasons)),
            "failed_clients": len(failed),
            "clients": len(outcomes),
        },
        allow_retries=False,
    )
