"""`kpi summary`: the text of the daily summary, now."""

from contextlib import ExitStack
from datetime import date, timedelta

from kpi_pipeline.alerting.summary import read_summary, summary_text
from kpi_pipeline.cli.console import out
from kpi_pipeline.cli.database import ready_databases
from kpi_pipeline.deployment import open_deployment
from kpi_pipeline.settings import Settings


def show(settings: Settings, day: date | None) -> None:
    """Print the summary of one date; without a date: yesterday's."""
    with ExitStack() as stack:
        settings = stack.enter_context(ready_databases(settings, dagster_too=False))
        deployment = stack.enter_context(open_deployment(settings))
        shown = day or deployment.today() - timedelta(days=1)
        with deployment.engine.connect() as connection:
            message = summary_text(read_summary(connection, shown), deployment.timezone)
    out.print(f"{message.title}\n{message.body}", markup=False, soft_wrap=True)
