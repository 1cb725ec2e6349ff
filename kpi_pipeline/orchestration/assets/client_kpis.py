"""The assets raw_bison_stats → kpi_projections → client_metrics and their checks, in one step.

One step, because a client's rows of all three are one transaction; and because Dagster skips what
is downstream of a step that failed: as steps of their own, one client's rejected key would keep
every other client's numbers from the dashboard. When some clients fail, the partitions of the
others turn green, those of the failed ones red, and the run fails and names them.

The checks are part of the step, as one of their own would be skipped whenever a client fails; a
round of checks is a run of this step that fills nothing.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.storage.tags import BACKFILL_ID_TAG

from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.asset_checks.specs import TOTALS_CHECK, specs_of
from kpi_pipeline.orchestration.assets.heartbeat import heartbeat
from kpi_pipeline.orchestration.assets.materializations import PartitionNumbers, record_partitions
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.assets.specs import kpi_specs
from kpi_pipeline.orchestration.partitions import DATE, WORKSPACE, block_of
from kpi_pipeline.settings import Settings
from kpi_pipeline.sync.scope import KpiAsset

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext
    from kpi_pipeline.sync.run import ClientOutcome


def build_client_kpis(
    grid: dg.MultiPartitionsDefinition, settings: Settings
) -> dg.AssetsDefinition:
    """The three assets over `grid`; any of them, and any block, can be materialized alone.

    What was filled is recorded as it is, and no result of Dagster's own tells of it.
    """

    @dg.multi_asset(
        specs=kpi_specs(settings),
        check_specs=specs_of(*(dg.AssetKey(step.value) for step in KpiAsset)),
        partitions_def=grid,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
        name="client_kpis",
    )
    def client_kpis(
        context: dg.AssetExecutionContext, app: AppResource
    ) -> Iterator[dg.AssetCheckResult]:
        with heartbeat(context.run):
            try:
                with app.opened() as opened:
                    failed = _fill(context, opened) if context.selected_asset_keys else None
                    yield from _checked(context, opened)
            except KpiError as error:
                raise dg.Failure(str(error), allow_retries=False) from None
            if failed is not None:
                raise failed

    return client_kpis


def _fill(context: dg.AssetExecutionContext, app: "AppContext") -> dg.Failure | None:
    """Fill the run's partitions and record them; the failure, if there is one to be raised."""
    # Imported late, with pandas and all: whoever only loads the definitions needs none of it.
    from kpi_pipeline.sync.run import run_sync

    block = block_of(context)
    steps = [step for step in KpiAsset if dg.AssetKey(step.value) in context.selected_asset_keys]

    def report(outcome: "ClientOutcome") -> None:
        if outcome.error is None:
            context.log.info(_line(outcome))
        else:
            context.log.error(outcome.error)

    outcomes = run_sync(app, block, steps, run_id=context.run.run_id, on_done=report)
    for step in steps:
        record_partitions(context, step.value, _filled(step, outcomes))
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    return _failure(outcomes, failed) if failed else None


def _checked(context: dg.AssetExecutionContext, app: "AppContext") -> Iterator[dg.AssetCheckResult]:
    """Do the checks that are selected: Dagster plans all of them with what is materialized.

    A run that fills partitions asks for no totals, as no sync may cost a call more than its facts.
    One of the many runs of a backfill does none: half of its rows are still to come, and a round
    follows when all are over.
    """
    from kpi_pipeline.orchestration.asset_checks.check_run import as_found, done, totals_now

    names = {key.name for key in context.selected_asset_check_keys}
    fills = bool(context.selected_asset_keys)
    if fills and BACKFILL_ID_TAG in context.run.tags:
        yield from as_found(app, names)
        return
    yield from done(app, names, context.instance)
    if TOTALS_CHECK.name in names:
        yield from as_found(app, [TOTALS_CHECK.name]) if fills else totals_now(app)


def _line(outcome: "ClientOutcome") -> str:
    if outcome.key_used is None:
        return f"{outcome.workspace}: {outcome.seconds:.1f} s"
    return (
        f"{outcome.workspace}: {outcome.key_used} key, {outcome.api_calls} calls, "
        f"{outcome.seconds:.1f} s ({outcome.waiting_seconds:.1f} s waiting for a turn, "
        f"{outcome.calling_seconds:.1f} s in calls)"
    )


def _filled(step: KpiAsset, outcomes: Sequence["ClientOutcome"]) -> PartitionNumbers:
    """Each partition that the healthy clients' work filled, with the numbers that Dagster plots."""
    filled: dict[dg.MultiPartitionKey, dict[str, Any]] = {}
    for outcome in outcomes:
        if outcome.error is not None:
            continue
        for day, numbers in outcome.numbers.items():
            metadata: dict[str, Any] = {
                "dagster/partition_row_count": 1,
                "emails_sent": numbers.emails_sent,
                "positive_replies": numbers.positive_replies,
                "seconds": outcome.seconds,
            }
            if step is KpiAsset.FACTS:
                metadata |= {
                    "api_calls": outcome.api_calls,
                    "key_used": outcome.key_used,
                    "waiting_seconds": outcome.waiting_seconds,
                    "calling_seconds": outcome.calling_seconds,
                }
            else:
                metadata |= {
                    "positive_replies_mtd": numbers.positive_replies_mtd,
                    "projection_positive_replies_eom": numbers.projection_positive_replies_eom,
                }
            key = dg.MultiPartitionKey({DATE: day.isoformat(), WORKSPACE: outcome.workspace})
            filled[key] = {name: value for name, value in metadata.items() if value is not None}
    return filled


def _failure(outcomes: Sequence["ClientOutcome"], failed: Sequence["ClientOutcome"]) -> dg.Failure:
    reasons = "\n".join(f"- {outcome.error}" for outcome in failed)
    return dg.Failure(
        f"{len(failed)} of {len(outcomes)} clients failed; the rows of the others are written.\n"
        f"{reasons}",
        metadata={
            "failed": dg.MetadataValue.md(reasons),
            "failed_clients": len(failed),
            "clients": len(outcomes),
        },
        allow_retries=False,
    )
