"""The alert sensor on a real instance: one problem is one message; the test sets the clock."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from unittest.mock import Mock

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test
from sqlalchemy.exc import OperationalError

from kpi_pipeline.checks.alerting import AlertingKind, alerting_problems
from kpi_pipeline.db.check_results import read_outcomes
from kpi_pipeline.db.server.retry import retry_on_disconnect
from kpi_pipeline.orchestration.asset_checks.specs import TOTALS_CHECK
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.automation import alerts
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.orchestration.runs import EVENTS_TAG
from kpi_pipeline_tests.alerts.support import START, Office, json_url, titles
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver
from kpi_pipeline_tests.orchestration.installation import Installation, temporary_instance
from kpi_pipeline_tests.orchestration.ticks import evaluate_schedule, leave_tick

pytestmark = pytest.mark.runs


class Desk:
    """Evaluates the sensor, each time from the cursor of the evaluation before."""

    def __init__(self, installation: Installation, receiver: Receiver) -> None:
        self.installation = installation
        self.instance = installation.instance
        self.receiver = receiver
        self.cursor: str | None = None
        app = installation.agency.app
        self.office = Office(app.engine, app.vault, [json_url(receiver.url)])
        self.repository = installation.definitions.get_repository_def()

    def evaluate(self, *minutes: float) -> str:
        """Evaluate at each of these minutes from now; the reason of the last tick."""
        reason = ""
        for ahead in minutes:
            moment = datetime.now(UTC) + timedelta(minutes=ahead)
            app = replace(self.office.app, now=partial(moment.astimezone, UTC))
            with dg.build_sensor_context(
                instance=self.instance, cursor=self.cursor, repository_def=self.repository
            ) as context:
                result = alerts.evaluate_alerts(context, app)
            self.cursor = result.cursor
            assert result.skip_reason is not None
            reason = str(result.skip_reason.skip_message)
        return reason

    def titles(self) -> list[str]:
        """The titles of all messages."""
        return titles(self.receiver.received)

    def run(self, good: bool, *assets: str, job: str = "a_job", **tags: str) -> str:
        """A run that ended so; its id."""
        run: dg.DagsterRun = create_run_for_test(
            self.instance,
            job_name=job,
            asset_selection=frozenset(map(dg.AssetKey, assets)) or None,
            tags={name.replace("__", "/"): value for name, value in tags.items()},
            status=DagsterRunStatus.STARTED,
        )
        if good:
            success = dg.DagsterEvent("PIPELINE_SUCCESS", run.job_name)
            self.instance.report_dagster_event(success, run.run_id)
        else:
            self.instance.report_run_failed(run)
        return run.run_id

    def sync(self) -> bool:
        """Sync all clients in a run; whether it succeeds."""
        dates = self.installation.days_ago(0, 1)
        tags = block_tags(self.installation.workspaces, dates)
        return self.installation.run(tags, checks=False).success

    def refresh_registry(self) -> bool:
        return self.installation.run(assets=["client_registry"]).success

    def check_totals(self) -> None:
        job = self.installation.definitions.resolve_implicit_global_asset_job_def()
        subset = job.get_subset(asset_check_selection={TOTALS_CHECK})
        assert subset.execute_in_process(instance=self.instance).success

    def retries(self) -> list[dg.RunRequest]:
        """The runs that the schedule `retry_unanswered_checks` requests."""
        definitions, now = self.installation.definitions, datetime.now(UTC)
        return evaluate_schedule(definitions, "retry_unanswered_checks", self.instance, now)[0]

    def failing_checks(self) -> set[str]:
        with self.office.engine.connect() as connection:
            return {it.name for it in read_outcomes(connection) if it.since is not None}


@pytest.fixture
def desk(installation: Installation, receiver: Receiver) -> Desk:
    return Desk(installation, receiver)


@pytest.mark.long
def test_a_client_whose_sync_fails_is_alerted_unless_a_retry_soon_succeeds(desk: Desk) -> None:
    installation = desk.installation
    bad, good = installation.agency.keyed[0], installation.agency.keyed[1]
    for client in (bad, good):
        installation.agency.revoke(client)
    dates = installation.days_ago(1)
    failed = installation.run(block_tags(installation.workspaces, dates), checks=False)
    assert "notified" not in desk.evaluate(0), "the failed clients are retried"

    # What the retry would have logged; one of them has a key again.
    desk.office.passed = datetime.now(UTC) - START
    desk.office.sync(good)
    assert desk.evaluate(6).endswith("notified json://127.0.0.1 of 1.")
    desk.evaluate(7)

    (message,) = desk.receiver.received
    assert message.body["title"] == f"ERROR: the sync fails for {bad}"
    assert f"/runs/{failed.run_id}" in message.body["message"]
    assert good not in message.text

    desk.office.sync(bad)
    desk.evaluate(8)
    assert desk.titles()[1:] == [f"RESOLVED: the sync works again for {bad}"]


def test_a_run_that_failed_for_good_is_alerted_until_a_later_one_succeeds(desk: Desk) -> None:
    desk.evaluate(0)
    failed = desk.run(False, job="clean_up_runs")
    desk.evaluate(1, 7, 8)
    (message,) = desk.receiver.received
    assert message.body["title"] == "ERROR: the last run of clean_up_runs failed"
    assert f"/runs/{failed}" in message.body["message"]

    desk.run(True, job="another_job")
    desk.evaluate(9)
    desk.run(True, job="clean_up_runs")
    desk.evaluate(10)
    assert desk.titles()[1:] == ["RESOLVED: the last run of clean_up_runs succeeded"]


def test_a_run_that_died_is_alerted_unless_a_later_one_succeeds_within_five_minutes(
    desk: Desk,
) -> None:
    desk.evaluate(0)
    desk.run(False, "raw_bison_stats", "client_metrics", job="__ASSET_JOB")
    desk.evaluate(1)
    desk.run(True, "raw_bison_stats", "kpi_projections", "client_metrics", job="__ASSET_JOB")
    desk.evaluate(7)
    assert desk.titles() == []

    desk.run(False, "raw_bison_stats", job="__ASSET_JOB")
    desk.run(False, "client_registry", job="__ASSET_JOB")
    desk.evaluate(8, 14)
    (title,) = desk.titles()
    assert title.startswith("KPIs: 2 problems: ")
    assert "the last run of sync failed" in title
    assert "the last run of client_registry failed" in title


def test_runs_that_dagster_retries_and_runs_of_events_are_not_alerted(
    desk: Desk,
) -> None:
    desk.evaluate(0)
    desk.run(False, "client_metrics", dagster__will_retry="true")
    desk.run(False, "client_metrics", **{EVENTS_TAG.replace("/", "__"): "waiting"})
    desk.evaluate(1)
    assert desk.evaluate(9) == "0 problems."
    # A run of events does not resolve what a sync left undone, either.
    desk.run(False, "client_metrics")
    desk.run(True, "client_metrics", **{EVENTS_TAG.replace("/", "__"): "waiting"})
    assert desk.evaluate(10) == "1 problem."


def test_a_schedule_whose_ticks_fail_is_alerted_until_one_succeeds(desk: Desk) -> None:
    leave_tick(desk.instance, "daily_kpi_sync", good=True)
    leave_tick(desk.instance, "daily_kpi_sync", good=False)
    leave_tick(desk.instance, "intraday_refresh", good=False, on=False)
    leave_tick(desk.instance, "gone_long_ago", good=False)
    leave_tick(desk.instance, "alert_sensor", good=False)
    desk.evaluate(0, 6, 7)
    (message,) = desk.receiver.received
    assert message.body["title"] == "ERROR: the schedule daily_kpi_sync fails"
    assert "what no alert shows" not in message.text
    leave_tick(desk.instance, "daily_kpi_sync", good=True)
    desk.evaluate(8)
    assert desk.titles()[1:] == ["RESOLVED: the schedule daily_kpi_sync works again"]


def test_ticks_that_fail_are_one_message_also_when_a_check_finds_them_too(desk: Desk) -> None:
    leave_tick(desk.instance, "daily_kpi_sync", good=False)
    rows = [
        {"what": "schedule daily_kpi_sync", "problem": "failed at its last tick, for 1 min"},
    ]
    desk.office.check("automation_alive", offenders=rows)
    desk.evaluate(0, 6, 15)
    assert desk.titles() == ["ERROR: the schedule daily_kpi_sync fails"]
    own = {"what": "sensor alert_sensor", "problem": "failed at its last 3 ticks, for 4 min"}
    desk.office.check("automation_alive", offenders=[own])
    desk.evaluate(40)
    assert desk.titles()[1:] == ["ERROR: automation does not work"], "nobody else would say it"


def test_an_evaluation_that_broke_is_repeated_from_the_old_cursor(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.evaluate(0)
    before = desk.cursor
    desk.run(False, job="clean_up_runs")
    desk.evaluate(1)
    with monkeypatch.context() as patch:
        patch.setattr("kpi_pipeline.alerts.evaluate.evaluate", Mock(side_effect=RuntimeError))
        with pytest.raises(RuntimeError):
            desk.evaluate(2)
    desk.cursor = before
    desk.evaluate(6.5)
    assert desk.titles() == ["ERROR: the last run of clean_up_runs failed"]


def test_a_failing_receiver_is_in_the_reason_of_the_tick_and_does_not_fail_it(desk: Desk) -> None:
    desk.receiver.answer = lambda path, before: 500
    desk.office.check("freshness", "acme")
    reason = desk.evaluate(0)
    assert reason.startswith("1 problem. json://127.0.0.1 has failed since ")
    assert reason.endswith(": see `kpi alerts test`.")
    desk.receiver.answer = lambda path, before: 200
    assert desk.evaluate(1).endswith("notified json://127.0.0.1 of 1.")


def test_a_receiver_that_accepts_nothing_is_told_to_the_others_and_not_to_itself(
    desk: Desk,
) -> None:
    url = desk.receiver.url
    desk.office.urls = [json_url(url, "/one"), json_url(url, "/two")]
    desk.receiver.answer = lambda path, before: 500 if path == "/two" else 200
    desk.office.check("freshness", "acme")
    for minutes in range(0, 15):
        desk.evaluate(minutes)
    told = titles(desk.receiver.at("/one"))
    assert [it for it in told if "receiver" in it] == [
        "ERROR: the receiver json://127.0.0.1 #2 accepts no alerts"
    ]
    assert "Clients" not in desk.receiver.at("/one")[-1].text

    desk.receiver.answer = lambda path, before: 200
    before = len(desk.receiver.at("/two"))
    desk.evaluate(20, 21)
    assert not any("receiver" in it for it in titles(desk.receiver.at("/two")[before:]))
    assert titles(desk.receiver.at("/one"))[-1].startswith("RESOLVED: ")


def test_an_evaluation_is_noted_when_it_ends_and_not_when_it_breaks(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def problems(minutes: float) -> list[AlertingKind]:
        now = datetime.now(UTC) + timedelta(minutes=minutes)
        with desk.office.engine.connect() as connection:
            return [it.kind for it in alerting_problems(connection, now)]

    desk.evaluate(0)
    assert problems(9) == []
    broken = Mock(side_effect=RuntimeError)
    monkeypatch.setattr("kpi_pipeline.alerts.evaluate.evaluate", broken)
    for minutes in (5, 10, 15):
        with pytest.raises(RuntimeError):
            desk.evaluate(minutes)
    assert problems(15) == [AlertingKind.NOT_EVALUATED]


def test_the_sensor_uses_the_settings_of_the_environment(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_ALERT_URLS", json_url(desk.receiver.url))
    monkeypatch.setenv("KPI_WEB_PORT", "3456")
    desk.office.check("freshness", "acme")
    definitions = desk.installation.definitions
    sensor = definitions.resolve_sensor_def("alert_sensor")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    with dg.build_sensor_context(
        instance=desk.instance,
        repository_def=desk.repository,
        resources=definitions.resources,
    ) as context:
        tick = sensor.evaluate_tick(context)
        assert tick.skip_message == "1 problem; notified json://127.0.0.1 of 1."
        assert "http://127.0.0.1:3456/assets/" in desk.receiver.received[0].body["message"]

        monkeypatch.setattr(
            alerts,
            "evaluate_alerts",
            Mock(
                side_effect=OperationalError(
                    "SELECT 1", {}, Exception("server closed the connection")
                )
            ),
        )
        with pytest.raises(dg.Failure, match="The database became unreachable") as failure:
            sensor(context)
    assert failure.value.__suppress_context__


def test_while_the_database_is_unreachable_a_tick_fails_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KPI_DATABASE_URL", "postgresql://kpi@127.0.0.1:1/kpi")
    monkeypatch.setattr(
        "kpi_pipeline.app.retry_on_disconnect", lambda work: retry_on_disconnect(work, seconds=0)
    )
    sensor = alerts.build_alert_sensor()
    with (
        temporary_instance() as instance,
        dg.build_sensor_context(instance=instance, resources={"app": AppResource()}) as context,
        pytest.raises(dg.Failure, match="database") as failure,
    ):
        sensor(context)
    assert failure.value.__cause__ is None
