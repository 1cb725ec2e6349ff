"""Materialize on the page of one asset: the rows of all three are made right, from the source."""

from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions import automation_tick_evaluation_context as module_of_the_cut
from dagster._core.definitions.automation_tick_evaluation_context import (
    build_run_requests_with_backfill_policies,
)
from dagster._core.definitions.events import AssetKeyPartitionKey

from kpi_pipeline.db.tables import kpi_projections
from kpi_pipeline.orchestration.assets import client_kpis
from kpi_pipeline.orchestration.dagster_private import _CUT, set_backfill_cut
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.orchestration.runs import WITHOUT_FETCH
from kpi_pipeline.orchestration.runtime.daemon import ranges_of
from kpi_pipeline_tests.agency import ASSETS, SERIES, Rows, differences
from kpi_pipeline_tests.orchestration.installation import Installation, cells

pytestmark = pytest.mark.runs


def of_assets(usual: str) -> pytest.MarkDecorator:
    """Each of the three, which one step fills; all but the usual one in `make test-long`."""
    rows = [pytest.param(it, marks=[] if it == usual else [pytest.mark.long]) for it in ASSETS]
    return pytest.mark.parametrize("asset", rows)


def green(installation: Installation, workspaces: Sequence[str], dates: Sequence[date]) -> bool:
    """Whether these partitions of all three assets are green, and no others, and none is red."""
    expected = cells(workspaces, dates), set[str]()
    return [installation.partitions(it) for it in ASSETS] == [expected] * 3


def clients(installation: Installation) -> tuple[list[str], str]:
    """Three adjacent clients, and one of them with an API key of its own."""
    workspaces = installation.workspaces[3:6]
    return workspaces, next(it for it in workspaces if installation.agency.key(it))


def series_calls(installation: Installation) -> dict[str, int]:
    """How many calls of the daily series were made for each client."""
    return {
        slug: sum(call["path"] == SERIES for call in calls)
        for slug, calls in installation.agency.calls().items()
    }


@of_assets("client_metrics")
def test_an_asset_that_is_materialized_alone_makes_all_three_right_from_the_source(
    installation: Installation, asset: str
) -> None:
    workspaces, dates = installation.workspaces[3:6], installation.days_ago(40, 39, 38)

    assert installation.run(block_tags(workspaces, dates), [asset]).success

    agency = installation.agency
    assert green(installation, workspaces, dates)
    assert differences(agency.rows(), agency.expected(dates, workspaces)) == []
    for table, rows in agency.all_rows().items():
        assert rows.keys() >= {(slug, day) for slug in workspaces for day in dates}, table
    assert all(installation.metadata(it).keys() == cells(workspaces, dates) for it in ASSETS)


@of_assets("kpi_projections")
def test_a_backfill_of_one_asset_over_many_runs_fills_all_three_and_nothing_else(
    installation: Installation, asset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agency, grid = installation.agency, installation.workspaces
    target = {
        **dict.fromkeys(grid[3:6], installation.days_ago(40, 39)),
        # Dates with a hole, of a client between others.
        grid[9]: installation.days_ago(36, 34, 33),
        grid[20]: installation.days_ago(33),
    }
    wanted = {it for slug, days in target.items() for it in cells([slug], days)}
    monkeypatch.setattr(module_of_the_cut, _CUT, getattr(module_of_the_cut, _CUT))
    set_backfill_cut(ranges_of, {})

    requests = build_run_requests_with_backfill_policies(
        [AssetKeyPartitionKey(dg.AssetKey(asset), key) for key in wanted],
        installation.definitions.resolve_asset_graph(),
        installation.instance,
    )
    assert len(requests) > 3
    for request in requests:
        assert request.asset_selection == [dg.AssetKey(asset)]
        assert installation.run(request.tags, [asset], checks=False).success

    assert [installation.partitions(it) for it in ASSETS] == [(wanted, set())] * 3
    expected: Rows = {}
    for slug, days in target.items():
        expected |= agency.expected(days, [slug])
    assert differences(agency.rows(), expected) == []
    assert agency.rows(kpi_projections).keys() == expected.keys()


@of_assets("raw_bison_stats")
def test_over_filled_dates_it_asks_email_bison_again_and_takes_up_a_revised_day(
    installation: Installation, asset: str
) -> None:
    agency = installation.agency
    workspaces, dates = installation.workspaces[3:6], installation.days_ago(3, 2, 1)
    revised = workspaces[1]
    tags = block_tags(workspaces, dates)
    assert installation.run(tags).success
    # Email Bison counts three mails less of that day than it did when it was fetched.
    fewer = "UPDATE raw_bison_stats SET sent = sent + 3 WHERE workspace = :w AND date = :d"
    agency.sql(fewer, w=revised, d=dates[1])
    assert installation.run(tags, ["client_metrics"], config=WITHOUT_FETCH).success
    before = agency.rows()
    agency.forget_calls()

    assert installation.run(tags, [asset]).success

    assert series_calls(installation) == dict.fromkeys(workspaces, 1)
    after = agency.rows()
    gained = {
        key: row["emails_sent_mtd"] - before[key]["emails_sent_mtd"] for key, row in after.items()
    }
    assert gained[revised, dates[1]] == -3
    assert {it for (slug, _), it in gained.items() if slug != revised} == {0}
    assert differences(after, agency.expected(dates, workspaces)) == []
    assert green(installation, workspaces, dates)


@of_assets("kpi_projections")
def test_a_partition_that_failed_is_red_on_all_three_and_green_after_a_run_from_another_page(
    installation: Installation, asset: str
) -> None:
    agency, dates = installation.agency, installation.days_ago(2, 1)
    workspaces, rejected = clients(installation)
    healthy = [it for it in workspaces if it != rejected]
    tags = block_tags(workspaces, dates)
    agency.revoke(rejected)

    assert not installation.run(tags, [asset]).success

    shown = cells(healthy, dates), cells([rejected], dates)
    assert [installation.partitions(it) for it in ASSETS] == [shown] * 3
    agency.restore(rejected)
    another = ASSETS[(ASSETS.index(asset) + 1) % 3]

    assert installation.run(block_tags([rejected], dates), [another]).success

    assert green(installation, workspaces, dates)
    assert differences(agency.rows(), agency.expected(dates, workspaces)) == []


@of_assets("client_metrics")
def test_without_a_fetch_it_makes_no_call_and_computes_projections_and_metrics_again(
    installation: Installation, asset: str
) -> None:
    agency, dates = installation.agency, installation.days_ago(2, 1)
    workspaces, _ = clients(installation)
    tags = block_tags(workspaces, dates)
    assert installation.run(tags).success
    right = agency.rows()
    agency.sql("UPDATE client_metrics SET positive_replies_mtd = 12345")
    agency.forget_calls()

    result = installation.run(tags, [asset], config=WITHOUT_FETCH)

    assert result.success
    assert agency.calls() == {}
    rows = agency.rows()
    column = "positive_replies_mtd"
    assert {key: row[column] for key, row in rows.items()} == {
        key: row[column] for key, row in right.items()
    }
    logged = [it.dagster_event for it in installation.instance.all_logs(result.run_id)]
    reported = {
        it.asset_key.to_user_string()
        for it in logged
        if it and it.asset_key and it.is_step_materialization
    }
    # A backfill of the facts waits for what it has requested.
    assert reported == {"kpi_projections", "client_metrics", asset}


def test_without_a_fetch_a_client_that_lacks_facts_says_what_to_do(
    installation: Installation,
) -> None:
    workspaces, dates = installation.workspaces[:1], installation.days_ago(1)

    result = installation.run(
        block_tags(workspaces, dates), ["client_metrics"], config=WITHOUT_FETCH
    )

    assert not result.success
    error = installation.failure(result)
    assert f"{workspaces[0]} has no facts of {dates[0]}. Fill them with `kpi backfill" in error
    red = set[str](), cells(workspaces, dates)
    assert [installation.partitions(it) for it in ASSETS[1:]] == [red, red]


@pytest.mark.parametrize("config", [{"fetch": "perhaps"}, {"fecth": False}])
def test_a_config_that_is_not_valid_is_refused_and_says_what_is_possible(
    installation: Installation, config: dict[str, object]
) -> None:
    tags = block_tags(installation.workspaces[:1], installation.days_ago(1))

    with pytest.raises(dg.DagsterInvalidConfigError) as error:
        installation.run(tags, config={"ops": {"client_kpis": {"config": config}}})

    assert "root:ops:client_kpis:config" in str(error.value)
    (name,) = config
    assert name in str(error.value)
    assert installation.agency.calls() == {}


def test_while_a_run_is_under_way_and_after_its_process_has_died_all_three_show_the_same(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspaces, dates = installation.workspaces[3:6], installation.days_ago(2, 1)
    instance = installation.instance
    shown: list[list[tuple[set[str], set[str]]]] = []

    def die(*_: object, run_id: str, **__: object) -> None:
        shown.append([(installation.under_way(it), set()) for it in ASSETS])
        run = instance.get_run_by_id(run_id)
        assert run is not None
        # What Dagster's monitor does with a run whose process is gone.
        instance.report_run_failed(run, "the process is gone")
        shown.append([installation.partitions(it) for it in ASSETS])
        raise AssertionError("the process is gone")

    monkeypatch.setattr("kpi_pipeline.sync.run.run_sync", die)
    assert not installation.run(block_tags(workspaces, dates), ["client_metrics"]).success

    under_way, died = shown
    assert under_way == [(cells(workspaces, dates), set())] * 3
    assert died == [(set(), cells(workspaces, dates))] * 3


def test_the_launchpad_describes_the_choice_to_fetch() -> None:
    schema: Any = client_kpis.FillConfig.to_config_schema()
    fields = schema.config_type.fields
    assert fields.keys() == {"fetch"}
    assert fields["fetch"].default_value is True
    description = str(fields["fetch"].description)
    assert "true: fetch the daily facts from Email Bison" in description
    assert "false: make no call" in description
