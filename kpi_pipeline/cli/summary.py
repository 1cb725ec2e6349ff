"""`kpi summary`: the text of the daily summary, now."""

from contextlib import ExitStack
from datetime import date, timedelta

from kpi_pipeline.alerts.summary import read_summary, summary_text
from kpi_pipeline.app import open_app
from kpi_pipeline.services.console import out
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.settings import Settings


def show(settings: Settings, day: date | None) -> None:
    """Print the summary of one date; without a date: yesterday's."""
    with ExitStack() as stack:
        settings = stack.enter_context(ready_databases(settings, dagster_too=False))
        app = stack.enter_context(open_app(settings))
        shown = day or app.today() - timedelta(days=1)
        with app.engine.connect() as connection:
            message = summary_text(read_summary(connection, shown), app.timezone)
    out.print(f"{message.title}\n{message.body}", markup=False, soft_wrap=True)
