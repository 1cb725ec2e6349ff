"""Which old runs are deleted: on a real PostgreSQL, with Dagster as dagster.yaml configures it."""

import time
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from itertools import islice
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._utils.schedules import schedule_execution_time_iterator
from sqlalchemy import URL

from kpi_pipeline.definitions import build_definitions
from kpi_pipeline.orchestration.automation import clean_up
from kpi_pipeline.orchestration.automation.report_rows import MAX_ROWS, REPORT_EVERY
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests import PROJECT_ROOT
from kpi_pipeline_tests.orchestration.installation import temporary_instance
from kpi_pipeline_tests.orchestration.old_runs import OldRuns, dagster_in

KEPT_FOR_AN_EVENT = "hold the latest event of a partition or an asset"


@dg.asset
def beacon(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    """An asset of one partition; a run of it is superseded by the next."""
    if "fails" in context.run.tags:
        raise dg.Failure("as the test asked", allow_retries=False)
    return dg.MaterializeResult(metadata={"run": context.run.run_id})


@pytest.fixture
def old(dagster_database: URL, tmp_path: Path) -> Iterator[OldRuns]:
    with dagster_in(dagster_database, tmp_path) as instance:
        yield OldRuns(instance)


def light(old: OldRuns, **tags: str) -> str:
    """Carry out a run; its id."""
    named = {name.replace("__", "/"): value for name, value in tags.items()}
    result = dg.materialize([beacon], instance=old.instance, tags=named, raise_on_error=False)
    return result.run_id


def test_superseded_refreshes_and_rounds_of_checks_stay_for_two_days_alone(old: OldRuns) -> None:
    refresh = {"dagster__schedule_name": "intraday_refresh"}
    gone = light(old, **refresh)
    failed = light(old, fails="yes", **refresh)
    nightly = light(old, dagster__schedule_name="daily_kpi_sync")
    old.let_pass(2.1)
    yesterday = light(old, **refresh)
    old.let_pass(1, yesterday)
    latest = light(old, **refresh)

    assert old.clean_up().startswith("1 run deleted, 0 from before ")

    assert old.present() == {failed, nightly, yesterday, latest}
    assert gone not in old.traces()


def test_old_results_of_checks_are_deleted_except_the_latest_of_each(old: OldRuns) -> None:
    @dg.asset_check(asset=beacon)
    def bright() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    for _ in range(3):
        dg.materialize([beacon, bright], instance=old.instance)
    old.sql("UPDATE asset_check_executions SET create_timestamp = now() - interval '91 days'")
    assert "results" not in old.clean_up(retention_days=92)

    assert old.clean_up().endswith("Older results of checks: 2 deleted.")

    key = dg.AssetCheckKey(beacon.key, "bright")
    records = old.instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    assert [record.status.value for record in records] == ["SUCCEEDED"]


def test_old_reports_of_a_sensor_are_deleted_except_the_latest_and_those_of_partitions(
    old: OldRuns,
) -> None:
    events = [dg.AssetMaterialization("news", metadata={"count": count}) for count in range(3)]
    events += [dg.AssetMaterialization("grid", partition=str(number)) for number in range(2)]
    for event in events:
        old.instance.report_runless_asset_event(event)
    old.sql("UPDATE event_logs SET timestamp = timestamp - interval '91 days'")
    assert "reports" not in old.clean_up(retention_days=92)

    assert old.clean_up().endswith("Older reports of sensors: 2 deleted.")

    record = old.instance.get_latest_materialization_event(dg.AssetKey("news"))
    assert record is not None
    assert record.asset_materialization is not None
    assert record.asset_materialization.metadata["count"].value == 2
    assert old.instance.get_materialized_partitions(dg.AssetKey("grid")) == {"0", "1"}
    assert (
        old.sql(
            "SELECT event_id FROM asset_event_tags "
            "WHERE event_id NOT IN (SELECT id FROM event_logs)"
        )
        == []
    )


def test_of_the_reports_of_a_partition_only_the_latest_is_left_after_a_day(old: OldRuns) -> None:
    def report(*partitions: str) -> None:
        for key in partitions:
            old.instance.report_runless_asset_event(dg.AssetMaterialization("grid", partition=key))

    # An hour of two clients whose rows change all the time.
    for _ in range(12):
        report("a", "b")
    report("c")
    assert "reports" not in old.clean_up(), "those of the last day stay"
    old.sql("UPDATE event_logs SET timestamp = timestamp - interval '25 hours'")
    report("a")

    assert old.clean_up().endswith("Older reports of sensors: 23 deleted.")

    left = old.sql("SELECT partition, count(*) FROM event_logs GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in left] == [("a", 1), ("b", 1), ("c", 1)]
    assert old.sql("SELECT count(*) FROM asset_event_tags")[0][0] == 0
    assert old.instance.get_materialized_partitions(dg.AssetKey("grid")) == {"a", "b", "c"}


def test_the_largest_number_of_reports_is_the_one_in_the_documentation() -> None:
    evaluations = timedelta(minutes=5) // timedelta(seconds=30)
    text = (PROJECT_ROOT / "docs" / "checks.md").read_text()
    per_client = timedelta(days=1) // REPORT_EVERY
    assert evaluations * MAX_ROWS == 2000
    for number in (per_client * 26, per_client * 1000):
        assert f"{number:,}" in text


def test_a_superseded_run_is_deleted_without_a_trace(old: OldRuns) -> None:
    first, second = light(old, purpose="made up"), light(old)
    old.let_pass(91)
    assert old.traces() == {first, second}

    report = old.clean_up()

    assert old.traces() == {second}
    assert report.startswith("1 run deleted, 1 from before ")
    assert f" JST kept; 1 {KEPT_FOR_AN_EVENT}." in report
    record = old.instance.get_latest_materialization_event(beacon.key)
    assert record is not None
    assert record.run_id == second


def test_the_output_of_a_deleted_run_is_deleted_with_it(old: OldRuns, tmp_path: Path) -> None:
    first, second = light(old), light(old)
    old.let_pass(91)
    assert {first, second} <= {path.name for path in (tmp_path / "dagster" / "storage").iterdir()}

    old.clean_up()

    left = {path.name for path in tmp_path.rglob("*") if path.is_dir()}
    assert second in left
    assert first not in left


@pytest.mark.long
def test_runs_that_ended_less_long_ago_stay_and_so_do_those_that_have_not_ended(
    old: OldRuns,
) -> None:
    young, running, gone, _ = (light(old) for _ in range(4))
    old.let_pass(89, young)
    old.let_pass(500, running, gone)
    old.sql("UPDATE runs SET status = 'STARTED' WHERE run_id = :run", run=running)

    old.clean_up()
    assert {young, running} <= old.present()
    assert gone not in old.present()

    old.clean_up(retention_days=88)
    assert young not in old.present()


def test_nothing_to_delete_is_fine(old: OldRuns) -> None:
    assert old.clean_up().startswith("0 runs deleted, 0 from before ")


def test_the_last_success_and_the_failure_after_it_stay_until_a_success_supersedes_both(
    old: OldRuns,
) -> None:
    success, earlier, failure = light(old), light(old, fails="yes"), light(old, fails="yes")
    old.let_pass(91)

    old.clean_up()
    assert earlier not in old.present()
    assert old.present() == {success, failure}

    mended = light(old)
    old.clean_up()
    assert old.present() == {mended}


@pytest.mark.parametrize(
    "status", [BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING, BulkActionStatus.FAILING]
)
def test_a_run_of_an_unfinished_backfill_stays_until_that_ends(
    old: OldRuns, status: BulkActionStatus
) -> None:
    backfill = PartitionBackfill("abcdefgh", status, False, {}, time.time())
    old.instance.add_backfill(backfill)
    of_it, _ = light(old, dagster__backfill="abcdefgh"), light(old)
    old.let_pass(91)

    assert "1 belong to an unfinished backfill" in old.clean_up()
    assert of_it in old.present()

    old.instance.update_backfill(backfill._replace(status=BulkActionStatus.COMPLETED_SUCCESS))
    old.clean_up()
    assert of_it not in old.present()


@pytest.mark.parametrize("kind", ["schedule_name", "sensor_name"])
@pytest.mark.long
def test_the_last_run_of_each_schedule_and_sensor_stays(old: OldRuns, kind: str) -> None:
    nightly, hourly, hourly_again, _ = (
        light(old, **({f"dagster__{kind}": name} if name else {}))
        for name in ("nightly", "hourly", "hourly", "")
    )
    old.let_pass(91)

    report = old.clean_up()

    assert {nightly, hourly_again} <= old.present()
    assert hourly not in old.present()
    assert "2 are the last of a schedule or sensor" in report


@pytest.mark.parametrize("relation", ["root_run_id", "parent_run_id"])
@pytest.mark.long
def test_a_run_that_was_retried_stays_as_long_as_its_retry(old: OldRuns, relation: str) -> None:
    attempt = light(old, fails="yes")
    again = light(old, **{f"dagster__{relation}": attempt})
    old.let_pass(91)

    assert "1 were retried by a run that is kept" in old.clean_up()
    assert old.present() == {attempt, again}

    last = light(old)
    old.clean_up()
    assert old.present() == {last}


@pytest.mark.long
def test_the_run_that_the_catalogue_names_as_an_assets_last_stays(old: OldRuns) -> None:
    named, other, _ = light(old), light(old), light(old)
    old.let_pass(91)
    old.sql("UPDATE asset_keys SET last_run_id = :run", run=named)

    assert "1 are the catalogue's last run of an asset" in old.clean_up()

    assert named in old.present()
    assert other not in old.present()


@pytest.mark.long
def test_more_runs_than_a_batch_are_all_deleted(
    old: OldRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clean_up, "_BATCH_SIZE", 2)
    *_, last = (light(old) for _ in range(6))
    old.let_pass(91)

    assert old.clean_up().startswith("5 runs deleted, 1 from before ")

    assert old.present() == {last}


def test_the_job_keeps_runs_for_as_long_as_the_setting_says_and_logs_what_it_did(
    old: OldRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = light(old), light(old), light(old)
    old.let_pass(32, first)
    old.let_pass(30, second)
    monkeypatch.setenv("KPI_RUN_RETENTION_DAYS", "31")
    job = build_definitions(load_settings()).resolve_job_def("clean_up_runs")

    result = job.execute_in_process(instance=old.instance)

    assert result.success
    assert first not in old.present()
    assert second in old.present()
    logged = [it.user_message for it in old.instance.all_logs(result.run_id)]
    assert any(it.startswith("1 run deleted, 0 from before ") for it in logged)


def test_without_postgresql_the_job_fails_with_a_sentence() -> None:
    job = build_definitions(load_settings()).resolve_job_def("clean_up_runs")

    with temporary_instance() as instance:
        result = job.execute_in_process(instance=instance, raise_on_error=False)

    assert result.dagster_run.status is DagsterRunStatus.FAILURE
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    data = failed.step_failure_data.user_failure_data
    assert data is not None
    assert data.description == (
        "Old runs are deleted only where Dagster's tables are in PostgreSQL, as the project's "
        "dagster.yaml has it. Start Dagster with `kpi up`, or with `dagster dev` in the folder of "
        "that file."
    )


def ticks(zone: str, start: date, count: int) -> list[datetime]:
    """The schedule's next ticks, on the clocks of a business time zone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KPI_TIMEZONE", zone)
        schedule = build_definitions(load_settings()).resolve_schedule_def("clean_up_runs")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    noon = datetime(start.year, start.month, start.day, 12, tzinfo=ZoneInfo(zone))
    found = schedule_execution_time_iterator(
        noon.timestamp(), schedule.cron_schedule, schedule.execution_timezone
    )
    return [it.astimezone(ZoneInfo(zone)) for it in islice(found, count)]


@pytest.mark.parametrize(
    ("zone", "changes"),
    [
        ("America/Chicago", date(2026, 3, 8)),
        ("America/Chicago", date(2026, 11, 1)),
        # There, the clock is changed at 3:00 or 4:00: 3:30 is skipped, or comes twice.
        ("Europe/Helsinki", date(2026, 3, 29)),
        ("Europe/Helsinki", date(2026, 10, 25)),
    ],
)
def test_the_clean_up_comes_once_each_night_where_clocks_change_too(
    zone: str, changes: date
) -> None:
    day = timedelta(days=1)
    found = ticks(zone, changes - day, 3)

    assert [it.date() for it in found] == [changes, changes + day, changes + 2 * day]
    skipped = (zone, changes) == ("Europe/Helsinki", date(2026, 3, 29))
    assert [(it.hour, it.minute) for it in found] == [
        (4, 0) if skipped else (3, 30),
        *[(3, 30)] * 2,
    ]
