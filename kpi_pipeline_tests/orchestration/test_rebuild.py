"""The grid after a loss of Dagster's database, reported from the stored rows."""

from dataclasses import replace
from datetime import date, timedelta

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from sqlalchemy import text

from kpi_pipeline.cli.dagster import lines_of
from kpi_pipeline.errors import KpiError
from kpi_pipeline.orchestration.partitions import WORKSPACE, block_tags
from kpi_pipeline.orchestration.rebuild import GridGap, grid_gap, rebuild
from kpi_pipeline.sync.scope import KpiAsset
from kpi_pipeline_tests.agency import ASSETS
from kpi_pipeline_tests.orchestration.installation import (
    Installation,
    cells,
    temporary_instance,
)


@pytest.fixture
def filled(installation: Installation) -> Installation:
    """Three clients, three dates and today, filled by a run."""
    clients = installation.workspaces[:3]
    result = installation.run(block_tags(clients, _dates(installation)), checks=False)
    assert result.success
    return installation


def _dates(installation: Installation) -> list[date]:
    return installation.days_ago(3, 2, 1, 0)


def _in_grid(installation: Installation, instance: DagsterInstance) -> list[set[str]]:
    """The green partitions of each asset."""
    return [
        set(instance.get_materialized_partitions(dg.AssetKey(asset.value))) for asset in KpiAsset
    ]


def test_after_a_loss_the_grid_is_as_before_without_a_call_and_a_second_time_changes_nothing(
    filled: Installation,
) -> None:
    app, clients = filled.agency.app, filled.workspaces
    wanted = cells(clients[:3], _dates(filled))
    assert _in_grid(filled, filled.instance) == [wanted] * 3
    before = {asset: filled.metadata(asset) for asset in ASSETS}
    calls = filled.agency.bison.calls()

    with temporary_instance() as fresh:
        assert grid_gap(app, fresh) == GridGap(rows=9, shown=0)
        assert str(grid_gap(app, fresh)) == (
            "9 rows of past days are stored, and Dagster's grid shows 0 of them: run `kpi dagster "
            "rebuild`, which makes no call to Email Bison."
        )

        counted = rebuild(app, fresh, dry_run=True)
        assert counted.total == 36
        assert _in_grid(filled, fresh) == [set()] * 3
        assert fresh.get_dynamic_partitions(WORKSPACE) == []

        progress: list[tuple[int, int]] = []
        done = rebuild(app, fresh, dry_run=False, on_client=lambda *it: progress.append(it))

        assert done.reported == counted.reported == dict.fromkeys(KpiAsset, 12)
        assert progress == [(1, 3), (2, 3), (3, 3)]
        assert list(fresh.get_dynamic_partitions(WORKSPACE)) == sorted(clients)
        assert _in_grid(filled, fresh) == [wanted] * 3
        assert grid_gap(app, fresh) is None
        lost, filled.instance = filled.instance, fresh
        for asset in ASSETS:
            shown = filled.partitions(asset)
            assert shown == (wanted, set())
            after = filled.metadata(asset)
            for it in before[asset].values():
                it.pop("fetch", None)
            assert after == before[asset]

        assert rebuild(app, fresh, dry_run=False).total == 0
        assert (
            len(fresh.fetch_materializations(dg.AssetKey("client_metrics"), limit=99).records) == 12
        )
        filled.instance = lost
    assert filled.agency.bison.calls() == calls


def test_an_interrupted_rebuild_continues_and_reports_no_partition_twice(
    filled: Installation,
) -> None:
    app = filled.agency.app

    def interrupt(number: int, _: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with temporary_instance() as fresh:
        with pytest.raises(KeyboardInterrupt):
            rebuild(app, fresh, dry_run=False, on_client=interrupt)
        assert [len(it) for it in _in_grid(filled, fresh)] == [8, 8, 8]

        assert rebuild(app, fresh, dry_run=False).total == 12

        assert [len(it) for it in _in_grid(filled, fresh)] == [12, 12, 12]
        for asset in ASSETS:
            records = fresh.fetch_materializations(dg.AssetKey(asset), limit=99).records
            assert len(records) == 12


def test_an_asset_that_was_wiped_by_hand_is_reported_again_and_the_others_are_not(
    filled: Installation,
) -> None:
    filled.instance.wipe_assets([dg.AssetKey("kpi_projections")])
    assert grid_gap(filled.agency.app, filled.instance) == GridGap(rows=9, shown=0)
    done = rebuild(filled.agency.app, filled.instance, dry_run=False)
    assert done.reported == {**dict.fromkeys(KpiAsset, 0), KpiAsset.PROJECTIONS: 12}
    assert filled.partitions("kpi_projections")[0] == cells(filled.workspaces[:3], _dates(filled))


def test_what_deleted_runs_had_filled_is_reported_again(filled: Installation) -> None:
    for run in filled.instance.get_runs():
        filled.instance.delete_run(run.run_id)
    assert rebuild(filled.agency.app, filled.instance, dry_run=False).total == 36


def test_a_partition_whose_last_run_failed_stays_red_and_one_that_a_run_is_to_fill_is_left_to_it(
    filled: Installation,
) -> None:
    app, instance = filled.agency.app, filled.instance
    red, waiting = filled.workspaces[0], filled.workspaces[1]
    instance.wipe_assets([dg.AssetKey(asset) for asset in ASSETS])
    planned = {}
    for workspace, status in ((red, DagsterRunStatus.FAILURE), (waiting, DagsterRunStatus.STARTED)):
        run = dg.DagsterRun(
            "__ASSET_JOB", tags=block_tags([workspace], _dates(filled)), status=status
        )
        instance.add_run(run)
        planned[workspace] = run.run_id
        for asset in ASSETS:
            for key in cells([workspace], _dates(filled)):
                _plan(instance, run.run_id, asset, key)

    done = rebuild(app, instance, dry_run=False)

    assert (done.total, done.failed, done.in_progress) == (12, 12, 12)
    assert grid_gap(app, instance) is None, "nothing that it could mend"
    for asset in ASSETS:
        green, failed = filled.partitions(asset)
        assert green == cells(filled.workspaces[2:3], _dates(filled))
        assert failed == cells([red], _dates(filled))
    assert lines_of(done, dry_run=False)[1:] == [
        "Left out: 12 partitions whose last run failed: materialize them; they stay red.",
        "Left out: 12 partitions that a run is to fill.",
    ]


def _plan(instance: DagsterInstance, run_id: str, asset: str, partition: str) -> None:
    from dagster._core.events import AssetMaterializationPlannedData, DagsterEvent

    data = AssetMaterializationPlannedData(dg.AssetKey(asset), partition=partition)
    event = DagsterEvent.build_asset_materialization_planned_event("__ASSET_JOB", "it", data)
    instance.report_dagster_event(event, run_id)


def test_rows_before_the_grid_and_of_inactive_clients_are_left_out_and_counted(
    filled: Installation,
) -> None:
    agency, inactive = filled.agency, filled.workspaces[0]
    with agency.app.engine.begin() as connection:
        connection.execute(
            text("UPDATE clients SET active = false WHERE workspace = :it"), {"it": inactive}
        )
    settings = agency.app.settings.model_copy(update={"first_date": filled.today - timedelta(2)})
    with temporary_instance() as fresh:
        done = rebuild(replace(agency.app, settings=settings), fresh, dry_run=False)
        assert inactive not in fresh.get_dynamic_partitions(WORKSPACE)
        wanted = cells(filled.workspaces[1:3], _dates(filled)[1:])
        assert _in_grid(filled, fresh) == [wanted] * 3
    assert lines_of(done, dry_run=False) == [
        "Reported 18 partitions of 2 clients: 6 of raw_bison_stats, 6 of kpi_projections, 6 of "
        "client_metrics.",
        "Left out: 2 rows before the grid's first date (KPI_FIRST_DATE).",
        "Left out: 4 rows of inactive clients.",
    ]


def test_a_row_without_facts_of_its_day_is_no_partition_of_raw_bison_stats(
    filled: Installation,
) -> None:
    day = filled.today - timedelta(days=1)
    with filled.agency.app.engine.begin() as connection:
        connection.execute(text("DELETE FROM raw_bison_stats WHERE date = :day"), {"day": day})
    with temporary_instance() as fresh:
        done = rebuild(filled.agency.app, fresh, dry_run=False)
        assert done.reported == {**dict.fromkeys(KpiAsset, 12), KpiAsset.FACTS: 9}
        assert grid_gap(filled.agency.app, fresh) is None


def test_two_rebuilds_at_once_report_nothing_twice(filled: Installation) -> None:
    app = filled.agency.app

    def another(*_: int) -> None:
        with pytest.raises(KpiError, match="Another `kpi dagster rebuild` is at work"):
            rebuild(app, fresh, dry_run=False)

    with temporary_instance() as fresh:
        assert rebuild(app, fresh, dry_run=False, on_client=another).total == 36


def test_todays_rows_alone_are_no_disagreement(installation: Installation) -> None:
    clients = installation.workspaces[:2]
    assert installation.run(block_tags(clients, installation.days_ago(0)), checks=False).success
    with temporary_instance() as fresh:
        assert grid_gap(installation.agency.app, fresh) is None
