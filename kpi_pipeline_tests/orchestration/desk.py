"""Evaluations of the alert sensor, at moments that the test sets."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from kpi_pipeline.orchestration.automation.alerts import evaluate_alerts
from kpi_pipeline_tests.alerts.support import Office, json_url, titles
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver
from kpi_pipeline_tests.orchestration.installation import Installation
from kpi_pipeline_tests.orchestration.ticks import leave_tick


class Desk:
    """Evaluates the sensor, each time from the cursor of the evaluation before."""

    def __init__(self, installation: Installation, receiver: Receiver) -> None:
        self.installation = installation
        self.instance: DagsterInstance = installation.instance
        self.receiver = receiver
        self.cursor: str | None = None
        app = installation.agency.app
        self.office = Office(app.engine, app.vault, [json_url(receiver.url)])
        self.repository = installation.definitions.get_repository_def()

    def look(self, minutes: float) -> str:
        """An evaluation so many minutes from now; the reason of the tick."""
        now = datetime.now(UTC) + timedelta(minutes=minutes)
        app = replace(self.office.app, now=lambda: now)
        with dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, repository_def=self.repository
        ) as context:
            result = evaluate_alerts(context, app)
        self.cursor = result.cursor
        assert result.skip_reason is not None
        return str(result.skip_reason.skip_message)

    def told(self) -> list[str]:
        return titles(self.receiver.received)

    def run(self, good: bool, *assets: str, job: str = "a_job", **tags: str) -> str:
        """A run that ended so."""
        run: dg.DagsterRun = create_run_for_test(
            self.instance,
            job_name=job,
            asset_selection=frozenset(map(dg.AssetKey, assets)) or None,
            tags={name.replace("__", "/"): value for name, value in tags.items()},
            status=DagsterRunStatus.STARTED,
        )
        if good:
            self.instance.report_dagster_event(
                dg.DagsterEvent("PIPELINE_SUCCESS", run.job_name), run.run_id
            )
        else:
            self.instance.report_run_failed(run)
        return run.run_id

    def tick(self, name: str, good: bool, *, on: bool = True) -> None:
        """A schedule's tick of now, which ended so."""
        leave_tick(self.instance, name, good=good, on=on)
