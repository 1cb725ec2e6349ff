"""The alert sensor on a real instance; the test sets the clock."""

from datetime import UTC, datetime
from unittest.mock import Mock

import dagster as dg
import pytest
from sqlalchemy.exc import OperationalError

from kpi_pipeline.db.retry import retry_on_disconnect
from kpi_pipeline.orchestration.automation import alerts
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.orchestration.runs import EVENTS_TAG
from kpi_pipeline_tests.alerts.support import START, json_url
from kpi_pipeline_tests.orchestration.desk import Desk
from kpi_pipeline_tests.orchestration.installation import temporary_instance

pytestmark = pytest.mark.runs


@pytest.mark.long
def test_a_client_whose_sync_fails_is_alerted_unless_a_retry_soon_succeeds(desk: Desk) -> None:
    installation = desk.installation
    bad, good = installation.agency.keyed[0], installation.agency.keyed[1]
    for client in (bad, good):
        installation.agency.revoke(client)
    dates = installation.days_ago(1)
    failed = installation.run(block_tags(installation.workspaces, dates), checks=False)
    assert "notified" not in desk.look(0), "the failed clients are asked for again"

    # What the split would have asked for; one of them has a key again.
    desk.office.passed = datetime.now(UTC) - START
    desk.office.sync(good)
    assert desk.look(6).endswith("notified json://127.0.0.1 of 1.")
    desk.look(7)

    (message,) = desk.receiver.received
    assert message.body["title"] == "ERROR: the sync of 1 client fails"
    assert f"Clients (1): {bad}" in message.body["message"]
    assert f"/runs/{failed.run_id}" in message.body["message"]
    assert good not in message.text

    desk.office.sync(bad)
    desk.look(8)
    assert desk.told()[1:] == ["RESOLVED: the sync of 1 client fails"]


def test_a_run_that_failed_for_good_is_alerted_until_a_later_one_succeeds(desk: Desk) -> None:
    desk.look(0)
    failed = desk.run(False, job="clean_up_runs")
    desk.look(1)
    desk.look(7)
    desk.look(8)
    (message,) = desk.receiver.received
    assert message.body["title"] == "ERROR: the last run of clean_up_runs failed"
    assert f"/runs/{failed}" in message.body["message"]

    desk.run(True, job="another_job")
    desk.look(9)
    desk.run(True, job="clean_up_runs")
    desk.look(10)
    assert desk.told()[1:] == ["RESOLVED: the last run of clean_up_runs failed"]


def test_a_run_that_died_is_alerted_unless_a_later_one_succeeds_within_five_minutes(
    desk: Desk,
) -> None:
    desk.look(0)
    desk.run(False, "raw_bison_stats", "client_metrics", job="__ASSET_JOB")
    desk.look(1)
    desk.run(True, "raw_bison_stats", "kpi_projections", "client_metrics", job="__ASSET_JOB")
    desk.look(7)
    assert desk.told() == []

    desk.run(False, "raw_bison_stats", job="__ASSET_JOB")
    desk.run(False, "client_registry", job="__ASSET_JOB")
    desk.look(8)
    desk.look(14)
    (title,) = desk.told()
    assert title.startswith("KPIs: 2 problems: ")
    assert "the last run of sync failed" in title
    assert "the last run of client_registry failed" in title


def test_runs_that_dagster_retries_and_runs_of_events_are_not_alerted(
    desk: Desk,
) -> None:
    desk.look(0)
    desk.run(False, "client_metrics", dagster__will_retry="true")
    desk.run(False, "client_metrics", **{EVENTS_TAG.replace("/", "__"): "waiting"})
    desk.look(1)
    assert desk.look(9) == "0 problems."
    # Nor does a run of events make good what a sync left undone.
    desk.run(False, "client_metrics")
    desk.run(True, "client_metrics", **{EVENTS_TAG.replace("/", "__"): "waiting"})
    assert desk.look(10) == "1 problem."


def test_a_schedule_whose_ticks_fail_is_alerted_until_one_succeeds(desk: Desk) -> None:
    desk.tick("daily_kpi_sync", good=True)
    desk.tick("daily_kpi_sync", good=False)
    desk.tick("hourly_refresh", good=False, on=False)
    desk.tick("gone_long_ago", good=False)
    desk.tick("alert_sensor", good=False)
    desk.look(0)
    desk.look(6)
    desk.look(7)
    (message,) = desk.receiver.received
    assert message.body["title"] == "ERROR: the schedule daily_kpi_sync fails"
    assert "what nobody is told" not in message.text
    desk.tick("daily_kpi_sync", good=True)
    desk.look(8)
    assert desk.told()[1:] == ["RESOLVED: the schedule daily_kpi_sync fails"]


def test_an_evaluation_that_broke_is_repeated_from_the_old_cursor(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.look(0)
    before = desk.cursor
    desk.run(False, job="clean_up_runs")
    desk.look(1)
    with monkeypatch.context() as patch:
        patch.setattr("kpi_pipeline.alerts.evaluate.evaluate", Mock(side_effect=RuntimeError))
        with pytest.raises(RuntimeError):
            desk.look(2)
    desk.cursor = before
    desk.look(6.5)
    assert desk.told() == ["ERROR: the last run of clean_up_runs failed"]


def test_a_failing_receiver_is_in_the_reason_of_the_tick_and_does_not_fail_it(desk: Desk) -> None:
    desk.receiver.answer = lambda path, before: 500
    desk.office.check("freshness", "acme")
    said = desk.look(0)
    assert said.startswith("1 problem. json://127.0.0.1 has failed since ")
    assert said.endswith(": see `kpi alerts test`.")
    desk.receiver.answer = lambda path, before: 200
    assert desk.look(1).endswith("notified json://127.0.0.1 of 1.")


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
    from kpi_pipeline.orchestration.assets.resources import AppResource

    sensor = alerts.build_alert_sensor()
    with (
        temporary_instance() as instance,
        dg.build_sensor_context(instance=instance, resources={"app": AppResource()}) as context,
        pytest.raises(dg.Failure, match="database") as failure,
    ):
        sensor(context)
    assert failure.value.__cause__ is None
