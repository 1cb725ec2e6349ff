"""The daily summary as Dagster sends it."""

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from kpi_pipeline.definitions import build_definitions
from kpi_pipeline.orchestration import nightly_sync
from kpi_pipeline.orchestration.automation import summary
from kpi_pipeline.orchestration.runs import AFTER_SYNC_OF, RUN_KEY, SCHEDULE, SUMMARY_OF
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.alerts.support import json_url, titles
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver
from kpi_pipeline_tests.orchestration.installation import Installation
from kpi_pipeline_tests.orchestration.ticks import leave_tick

pytestmark = pytest.mark.runs


@pytest.fixture
def alerted(
    installation: Installation, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> Installation:
    """Its alerts go to two receivers."""
    urls = [json_url(receiver.url, "/one"), json_url(receiver.url, "/two")]
    monkeypatch.setenv("KPI_ALERT_URLS", " ".join(urls))
    monkeypatch.setattr(summary, "_PAUSES_SECONDS", (0.0, 0.0))
    return installation


def send(
    installation: Installation, day: date | None, others: Mapping[str, str] | None = None
) -> dg.ExecuteInProcessResult:
    """Carry out the job that the schedule asks for."""
    job = installation.definitions.resolve_job_def("send_summary")
    tags = {**({SUMMARY_OF: day.isoformat()} if day else {}), **(others or {})}
    return job.execute_in_process(instance=installation.instance, tags=tags, raise_on_error=False)


@pytest.mark.parametrize(
    ("tick", "day"),
    [
        (date(2026, 3, 18), "2026-03-17"),
        (date(2026, 3, 1), "2026-02-28"),
        (date(2026, 3, 8), "2026-03-07"),
        (date(2025, 11, 2), "2025-11-01"),
    ],
    ids=["midweek", "1 March", "23 h", "25 h"],
)
def test_each_morning_the_schedule_requests_the_summary_of_the_day_before(
    instance: DagsterInstance, tick: date, day: str
) -> None:
    schedule = build_definitions(load_settings()).resolve_schedule_def("daily_summary")
    assert schedule.cron_schedule == "0 8 * * *"
    assert schedule.execution_timezone == "America/Chicago"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=datetime.combine(tick, time(8), ZoneInfo("America/Chicago")),
    ) as context:
        (request,) = schedule.evaluate_tick(context).run_requests or ()
    assert (request.run_key, request.tags[SUMMARY_OF]) == (day, day)
    assert datetime.fromisoformat(request.tags[AFTER_SYNC_OF]).date() == tick


def test_the_hour_is_the_one_that_is_set_and_off_is_no_schedule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KPI_SUMMARY_AT", "06:45")
    schedule = build_definitions(load_settings()).resolve_schedule_def("daily_summary")
    assert schedule.cron_schedule == "45 6 * * *"
    monkeypatch.setenv("KPI_SUMMARY_AT", "off")
    names = {it.name for it in build_definitions(load_settings()).schedules or ()}
    assert "daily_summary" not in names
    assert "daily_kpi_sync" in names


def test_the_summary_goes_to_each_receiver_and_is_retried_for_one_that_fails(
    alerted: Installation, receiver: Receiver
) -> None:
    (yesterday,) = alerted.days_ago(1)
    alerted.agency.synced([yesterday], alerted.workspaces[:2])
    receiver.answer = lambda path, before: 503 if path == "/two" and before == 0 else 200

    assert send(alerted, None).success

    assert titles(receiver.at("/one")) == [f"KPIs of {yesterday:%A, %d %B %Y}"]
    assert len(receiver.at("/two")) == 2
    assert "2 of 26 clients have numbers." in receiver.at("/two")[-1].body["message"]


@pytest.mark.parametrize("ends", [True, False])
def test_the_summary_of_a_made_up_tick_waits_for_the_rows_of_its_day(
    alerted: Installation, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    app, instance = alerted.agency.app, alerted.instance
    due = nightly_sync.due_before(app.now(), app.settings)
    leave_tick(instance, "daily_kpi_sync", at=due)
    night = create_run_for_test(
        instance,
        asset_selection=frozenset({dg.AssetKey("client_metrics")}),
        tags={SCHEDULE: "daily_kpi_sync", RUN_KEY: f"{due.isoformat()} all"},
        status=DagsterRunStatus.STARTED,
    )
    (yesterday,) = alerted.days_ago(1)
    sent: list[int] = []

    def sync(_: float) -> None:
        sent.append(len(receiver.received))
        alerted.agency.synced([yesterday], alerted.workspaces[:2])
        instance.report_dagster_event(
            dg.DagsterEvent("PIPELINE_SUCCESS", night.job_name), night.run_id
        )

    longest = nightly_sync.LONGEST_WAIT if ends else timedelta(0)
    wait = partial(nightly_sync.wait_for_nightly_sync, sleep=sync)
    monkeypatch.setattr(
        nightly_sync,
        "wait_for_nightly_sync",
        lambda *args, **named: wait(*args, **{**named, "longest": longest}),
    )
    assert send(alerted, yesterday, {AFTER_SYNC_OF: app.now().isoformat()}).success

    (message,) = receiver.at("/one")
    assert message.body["title"] == f"KPIs of {yesterday:%A, %d %B %Y}"
    first, *rest = message.body["message"].splitlines()
    if ends:
        assert sent == [0], "nothing was sent before the rows were there"
        assert first == "2 of 26 clients have numbers."
    else:
        assert first.startswith("The nightly sync of ")
        assert first.endswith(" is in progress: numbers may still change.")
        assert rest[0] == "0 of 26 clients have numbers."
        assert sum(it.endswith(": no numbers") for it in rest) == 26


def test_a_receiver_that_keeps_failing_fails_the_run_by_name_and_the_others_get_it_once(
    alerted: Installation, receiver: Receiver
) -> None:
    receiver.answer = lambda path, before: 503 if path == "/two" else 200
    result = send(alerted, date(2026, 3, 17))
    assert not result.success
    assert alerted.failure(result) == (
        "1 of 2 receivers of KPI_ALERT_URLS did not accept the summary: json://127.0.0.1 #2. "
        "`kpi alerts test` tries them; the others have it."
    )
    assert titles(receiver.at("/one")) == ["KPIs of Tuesday, 17 March 2026"]
