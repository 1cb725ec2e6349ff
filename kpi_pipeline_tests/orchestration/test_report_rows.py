"""Changed rows of client_metrics are reported to their partitions: soon, seldom, and not twice."""

from dataclasses import replace
from datetime import date, timedelta

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from kpi_pipeline.orchestration.automation import report_rows
from kpi_pipeline.orchestration.automation.report_rows import (
    _INTERVAL_SECONDS,
    REPORT_EVERY,
    evaluate_reports,
)
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.orchestration.runs import SCHEDULE
from kpi_pipeline_tests.agency import ASSETS
from kpi_pipeline_tests.orchestration.installation import Installation, cells, lead

pytestmark = pytest.mark.runs

NOTHING = timedelta(0)
FIVE_MINUTES = timedelta(minutes=5)


def evaluate(
    installation: Installation, after: timedelta = NOTHING, cursor: str | None = None
) -> list[str]:
    """One evaluation, so long after now, as the daemon does it; the reported partitions."""
    now = installation.agency.app.now() + after
    app = replace(installation.agency.app, now=lambda: now)
    result = evaluate_reports(installation.instance, app, cursor)
    for event in result.asset_events:
        assert isinstance(event, dg.AssetMaterialization)
        installation.instance.report_runless_asset_event(event)
    return [str(it.partition) for it in result.asset_events if it.partition is not None]


def bring_leads(installation: Installation, workspace: str, day: date, number: int = 1) -> None:
    """Leads arrive at the gateway, which applies them at once."""
    leads = [lead(installation.agency.ids[workspace], day) for _ in range(number)]
    installation.store(*leads, realtime=True)


def disagreements(installation: Installation) -> list[str]:
    """The rows of which the latest materialization of the partition shows other numbers."""
    shown = installation.metadata("client_metrics")
    found = []
    for (workspace, day), row in installation.agency.rows().items():
        table = str(shown.get(f"{day}|{workspace}", {}).get("numbers", ""))
        wanted = {
            "emails_sent_mtd": f"{row['emails_sent_mtd']:,}",
            "positive_replies_mtd": f"{row['positive_replies_mtd']:,}",
            "positive_replies_today": f"{row['positive_replies_today']:,}",
        }
        found += [
            f"{day}|{workspace} {name}"
            for name, number in wanted.items()
            if f"|{name}|{number}|" not in table
        ]
    return found


def still_listed(installation: Installation) -> int:
    return int(installation.agency.sql("SELECT count(*) FROM changed_rows")[0][0])


@pytest.fixture
def synced(installation: Installation) -> Installation:
    """Three clients whose last two days a run has filled."""
    days = installation.days_ago(1, 0)
    assert installation.run(block_tags(installation.workspaces[:3], days), checks=False).success
    return installation


def test_a_lead_is_on_the_page_with_the_next_evaluation_and_the_row_leaves_the_list(
    synced: Installation,
) -> None:
    first, second, _ = synced.workspaces[:3]
    bring_leads(synced, first, synced.today, 2)
    assert disagreements(synced) != []

    assert evaluate(synced) == [f"{synced.today}|{first}"]

    assert disagreements(synced) == []
    assert evaluate(synced, FIVE_MINUTES) == []
    assert still_listed(synced) == 0
    bring_leads(synced, second, synced.today - timedelta(days=1))
    assert set(evaluate(synced, FIVE_MINUTES)) == cells([second], synced.days_ago(1, 0))


def test_rows_that_a_sync_wrote_and_reported_are_not_reported_again(synced: Installation) -> None:
    assert evaluate(synced) == []
    days = synced.days_ago(1, 0)
    synced.agency.sql("UPDATE client_metrics SET positive_replies_mtd = 99999")
    assert still_listed(synced) == 6

    assert synced.run(block_tags(synced.workspaces[:3], days), checks=False).success

    assert evaluate(synced) == []
    assert still_listed(synced) == 0


def test_a_row_is_reported_seldom_and_never_five_minutes_late(
    synced: Installation,
) -> None:
    workspace = synced.workspaces[0]
    bring_leads(synced, workspace, synced.today)
    assert evaluate(synced) == [f"{synced.today}|{workspace}"]
    bring_leads(synced, workspace, synced.today)

    assert evaluate(synced, REPORT_EVERY - timedelta(seconds=30)) == []
    assert disagreements(synced) != []
    assert evaluate(synced, REPORT_EVERY) == [f"{synced.today}|{workspace}"]
    assert disagreements(synced) == []
    late = REPORT_EVERY + timedelta(seconds=_INTERVAL_SECONDS)
    assert late < FIVE_MINUTES, "and an evaluation takes a few seconds"


def test_a_recompute_of_many_rows_is_reported_in_batches_todays_rows_first(
    synced: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_rows, "MAX_ROWS", 3)
    synced.agency.sql("UPDATE client_metrics SET emails_sent_mtd = emails_sent_mtd + 1")
    clients = synced.workspaces[:3]

    assert set(evaluate(synced)) == cells(clients, [synced.today])
    assert set(evaluate(synced)) == cells(clients, synced.days_ago(1))
    assert evaluate(synced) == []
    assert disagreements(synced) == []


def test_a_row_waits_for_the_run_of_its_client_but_no_longer_than_four_minutes(
    synced: Installation,
) -> None:
    first, second, _ = synced.workspaces[:3]
    synced.agency.sql("DELETE FROM changed_rows")
    run = create_run_for_test(
        synced.instance,
        status=DagsterRunStatus.STARTED,
        tags=block_tags([first], synced.days_ago(0)),
        asset_selection={dg.AssetKey(name) for name in ASSETS},
    )
    for workspace in (first, second):
        bring_leads(synced, workspace, synced.today)

    assert evaluate(synced) == [f"{synced.today}|{second}"]
    assert evaluate(synced, timedelta(minutes=4)) == [f"{synced.today}|{first}"]
    # The run may still log what it read before.
    assert evaluate(synced, timedelta(minutes=9)) == []
    assert still_listed(synced) == 1
    synced.instance.report_run_canceled(run)
    assert evaluate(synced, timedelta(minutes=14)) == []
    assert still_listed(synced) == 0


def test_a_failed_partition_stays_red_until_a_sync_has_mended_it(synced: Installation) -> None:
    workspace = next(it for it in synced.workspaces[:3] if synced.agency.key(it))
    tags, red = block_tags([workspace], synced.days_ago(0)), cells([workspace], [synced.today])
    synced.agency.revoke(workspace)
    assert not synced.run(tags).success
    bring_leads(synced, workspace, synced.today)

    assert evaluate(synced) == []
    assert synced.partitions("client_metrics")[1] == red

    synced.agency.restore(workspace)
    assert synced.run(tags).success
    assert evaluate(synced, FIVE_MINUTES) == []
    assert disagreements(synced) == []
    assert still_listed(synced) == 0


def test_rows_that_are_no_partition_leave_the_list_unreported(synced: Installation) -> None:
    workspace = synced.workspaces[0]
    day = date(synced.today.year - 3, 1, 1)
    synced.agency.sql(
        "UPDATE client_metrics SET metric_date = :day WHERE workspace = :it AND metric_date = :of",
        day=day,
        it=workspace,
        of=synced.today,
    )
    synced.agency.sql(
        "INSERT INTO changed_rows SELECT workspace, :day, now() FROM clients", day=day
    )

    assert evaluate(synced) == []
    assert still_listed(synced) == 0


def test_the_totals_are_reported_once_for_a_sync_when_all_its_runs_have_ended(
    synced: Installation,
) -> None:
    tags = {SCHEDULE: "daily_kpi_sync", "dagster/tick": "7"}
    grid = {dg.AssetKey(name) for name in ASSETS}

    def run(status: DagsterRunStatus) -> dg.DagsterRun:
        made: dg.DagsterRun = create_run_for_test(
            synced.instance, status=status, tags=tags, asset_selection=grid
        )
        return made

    def totals() -> tuple[dict[str, int], str | None]:
        result = evaluate_reports(synced.instance, synced.agency.app, cursor)
        (event,) = result.asset_events or (None,)
        if event is None:
            return {}, result.cursor
        assert isinstance(event, dg.AssetMaterialization)
        assert event.asset_key == dg.AssetKey("agency_totals")
        return {key: int(str(it.value)) for key, it in event.metadata.items()}, result.cursor

    cursor: str | None = None
    waited_for = run(DagsterRunStatus.STARTED)
    assert totals() == ({}, None)
    run(DagsterRunStatus.FAILURE)
    assert totals() == ({}, None)
    synced.instance.report_run_failed(waited_for)

    numbers, cursor = totals()

    rows = [row for (_, day), row in synced.agency.rows().items() if day == synced.today]
    assert numbers == {
        **{
            name: sum(int(row[name]) for row in rows)
            for name in (
                "emails_sent_mtd",
                "positive_replies_mtd",
                "projection_positive_replies_eom",
            )
        },
        "clients_on_track": sum(
            row["monthly_kpi_target"] is not None
            and row["projection_positive_replies_eom"] >= row["monthly_kpi_target"]
            for row in rows
        ),
        "clients_with_numbers": 3,
        "clients": 26,
    }
    assert cursor == "daily_kpi_sync 7"
    assert totals() == ({}, cursor)


def test_the_totals_are_reported_once_before_any_schedule_has_ticked_if_there_are_numbers(
    installation: Installation,
) -> None:
    def totals(cursor: str | None) -> tuple[int, str | None]:
        result = evaluate_reports(installation.instance, installation.agency.app, cursor)
        return len(result.asset_events), result.cursor

    assert totals(None) == (0, None)
    tags = block_tags(installation.workspaces[:3], [installation.today])
    assert installation.run(tags, checks=False).success
    number, cursor = totals(None)
    assert (number, cursor) == (1, "first numbers")
    assert totals(cursor) == (0, cursor)


def test_the_button_of_agency_totals_sums_up_as_the_sensor_does(synced: Installation) -> None:
    assert synced.run(assets=["agency_totals"], checks=False).success
    (event,) = synced.instance.fetch_materializations(dg.AssetKey("agency_totals"), 9).records
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["clients_with_numbers"].value == 3


def test_no_number_of_a_partition_is_plotted_as_if_it_were_the_assets(
    synced: Installation,
) -> None:
    for asset in ASSETS:
        for entries in synced.metadata(asset).values():
            numeric = {name for name, value in entries.items() if isinstance(value, int | float)}
            assert numeric <= {"as_of"}
