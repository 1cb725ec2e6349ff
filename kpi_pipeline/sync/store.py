"""One client's rows, written in one transaction: all of them, or none."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date

from kpi_pipeline.deployment import Deployment
from kpi_pipeline.sync.fetch import FetchedFacts
from kpi_pipeline.sync.rectangle import Step
from kpi_pipeline.warehouse.counted_events import mark_applied
from kpi_pipeline.warehouse.facts import store_facts, store_plan
from kpi_pipeline.warehouse.locks import lock_client
from kpi_pipeline.warehouse.metric_rows import (
    DayNumbers,
    publish_metrics,
    read_day_numbers,
    recompute_projections,
)


def store_client(
    deployment: Deployment,
    workspace: str,
    dates: Sequence[date],
    steps: Collection[Step],
    facts: FetchedFacts | None,
) -> Mapping[date, DayNumbers]:
    """Write what was fetched, and work out the rows of `dates` anew, as far as `steps` ask for it.

    Returns the numbers that Dagster plots, by date.

    Raises:
        KpiError: if a step finds nothing to stand on; the client's rows are as before then.
    """
    with deployment.engine.begin() as connection:
        lock_client(connection, workspace)
        if facts is not None:
            store_facts(connection, workspace, facts.days, facts.as_of)
            if facts.plan is not None:
                store_plan(connection, workspace, facts.plan)
        today = deployment.today()
        if Step.PROJECTIONS in steps:
            recompute_projections(connection, workspace, dates, deployment.timezone, open_day=today)
        if Step.METRICS in steps:
            publish_metrics(connection, workspace, dates, source="sync")
        if {Step.PROJECTIONS, Step.METRICS} <= set(steps):
            mark_applied(connection, workspace, dates, today=today, now=deployment.now())
        return read_day_numbers(connection, workspace, dates)
