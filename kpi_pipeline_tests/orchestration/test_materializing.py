"""Runs of the real definitions: the partitions that they fill, and how they fail."""

import logging
from itertools import pairwise

import pytest

from kpi_pipeline.domain.columns import PARTITION_COLUMNS, PERCENTAGES
from kpi_pipeline.orchestration.partitions import block_tags
from kpi_pipeline.orchestration.runs import RANGE_END, RANGE_START
from kpi_pipeline.sync.scope import KpiAsset
from kpi_pipeline_tests.agency import ASSETS, PLANS, differences
from kpi_pipeline_tests.orchestration.installation import Installation, cells

pytestmark = pytest.mark.runs


def test_a_run_over_a_block_materializes_its_partitions_and_no_other(
    installation: Installation,
) -> None:
    workspaces, dates = installation.workspaces[3:9], installation.days_ago(3, 2, 1)

    result = installation.run(block_tags(workspaces, dates))

    assert result.success
    for asset in ASSETS:
        assert installation.partitions(asset) == (cells(workspaces, dates), set()), asset
    agency = installation.agency
    rows = agency.rows()
    assert differences(rows, agency.expected(dates, workspaces)) == []
    assert len(agency.rows()) == 6 * 3


def test_each_partition_carries_its_own_numbers(installation: Installation) -> None:
    agency, dates = installation.agency, installation.days_ago(2, 1)
    workspaces = next(
        pair
        for pair in pairwise(installation.workspaces)
        if agency.key(pair[0]) and not agency.key(pair[1])
    )
    keyless = workspaces[1]

    assert installation.run(block_tags(workspaces, dates)).success

    rows = agency.rows()
    assert len(rows) == 4
    for asset in ASSETS:
        metadata = installation.metadata(asset)
        assert metadata.keys() == cells(workspaces, dates)
        for (slug, day), row in rows.items():
            shown = metadata[f"{day}|{slug}"]
            assert shown["as_of"] == pytest.approx(row["as_of"].timestamp())
            table = str(shown.get("numbers", "")).splitlines()
            head = f"|[{row['display_name']}]({agency.bison.http.base_url}"
            if asset == KpiAsset.FACTS.value:
                # A keyless client: switch, whose key, series, whose key. Else: whose key, series.
                fetch = "master key, 4 calls" if slug == keyless else "workspace key, 2 calls"
                assert str(shown["fetch"]).startswith(fetch)
                assert table[0].startswith(head)
                assert f"|sent|{row['emails_sent_today']:,}|" in table
                assert f"|interested|{row['positive_replies_today']:,}|" in table
            elif asset == KpiAsset.PROJECTIONS.value:
                assert shown.keys() == {"as_of"}
            else:
                assert table[0].startswith(head)
                assert table[0].endswith(f"|{day}|")
                for column in PARTITION_COLUMNS:
                    unit = " %" if column in PERCENTAGES else ""
                    number = "–" if row[column] is None else f"{row[column]:,}{unit}"
                    assert f"|{column}|{number}|" in table


def test_a_run_over_one_partition_fills_it_alone(installation: Installation) -> None:
    (day,) = installation.days_ago(1)
    workspace = installation.workspaces[7]

    result = installation.run(partition=f"{day}|{workspace}")

    assert result.success
    for asset in ASSETS:
        assert installation.partitions(asset) == (cells([workspace], [day]), set())
    assert installation.agency.rows().keys() == {(workspace, day)}


def test_today_can_be_materialized_while_it_is_open(installation: Installation) -> None:
    workspaces = installation.workspaces[:2]

    assert installation.run(block_tags(workspaces, [installation.today])).success

    rows = installation.agency.rows()
    assert rows.keys() == {(slug, installation.today) for slug in workspaces}
    assert all(row["emails_scheduled_today"] is not None for row in rows.values())


def test_a_sending_plan_that_fails_is_a_warning_in_the_runs_log_and_fails_nothing(
    installation: Installation,
) -> None:
    workspaces, agency = installation.workspaces[:2], installation.agency
    agency.bison.fault("status", path=PLANS, workspace_id=agency.ids[workspaces[0]], status=403)

    result = installation.run(block_tags(workspaces, [installation.today]))

    assert result.success
    rows = agency.rows()
    plans = [rows[slug, installation.today]["emails_scheduled_today"] for slug in workspaces]
    assert [plan is None for plan in plans] == [True, False]
    logs = installation.instance.all_logs(result.run_id)
    (warning,) = [entry.user_message for entry in logs if entry.level == logging.WARNING]
    assert f"{workspaces[0]}: the sending plan of {installation.today} is not known" in warning
    assert "answered 403" in warning


def test_one_rejected_key_turns_its_own_partitions_red_and_the_others_green(
    installation: Installation,
) -> None:
    workspaces, dates = installation.workspaces[:5], installation.days_ago(2, 1)
    agency = installation.agency
    (rejected, *_) = [slug for slug in workspaces if agency.key(slug)]
    agency.revoke(rejected)

    result = installation.run(block_tags(workspaces, dates))

    assert not result.success
    healthy = [slug for slug in workspaces if slug != rejected]
    for asset in ASSETS:
        green, red = installation.partitions(asset)
        assert green == cells(healthy, dates), asset
        assert red == cells([rejected], dates), asset
    assert agency.rows().keys() == {(slug, day) for slug in healthy for day in dates}
    error = installation.failure(result)
    assert error.startswith("1 of 5 clients failed; the rows of the others are written.")
    assert f"- {rejected}: " in error
    assert "401" in error
    assert "Give the client a valid api_key" in error
    assert str(agency.key(rejected)).split("|")[1] not in error
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    data = failure.step_failure_data.user_failure_data
    assert data is not None
    shown = {name: value.value for name, value in data.metadata.items()}
    assert (shown["failed_clients"], shown["clients"]) == (1, 5)


def test_failed_partitions_turn_green_once_their_client_has_a_valid_key(
    installation: Installation,
) -> None:
    workspaces, (day,) = installation.workspaces[:3], installation.days_ago(1)
    agency = installation.agency
    rejected = next(slug for slug in workspaces if agency.key(slug))
    agency.revoke(rejected)
    assert not installation.run(block_tags(workspaces, [day])).success
    body = {"workspace_id": agency.ids[rejected]}
    agency.bison.http.post("/sandbox/keys/restore", json=body).raise_for_status()

    assert installation.run(partition=f"{day}|{rejected}").success

    for asset in ASSETS:
        assert installation.partitions(asset) == (cells(workspaces, [day]), set())


def test_a_run_with_the_tags_of_a_range_and_of_single_partitions_fails(
    installation: Installation,
) -> None:
    workspaces, dates = installation.workspaces[:3], installation.days_ago(3, 2, 1)
    single = {
        "dagster/partition/date": str(dates[0]),
        "dagster/partition/workspace": workspaces[0],
    }

    result = installation.run(block_tags(workspaces, dates) | single)

    assert {RANGE_START, RANGE_END, *single} <= result.dagster_run.tags.keys()
    assert not result.success
    error = installation.failure(result)
    assert "names both a range of partitions and single partitions" in error
    assert "Start the backfill from the asset's page" in error
    assert installation.agency.all_rows() == {asset: {} for asset in ASSETS}
    assert installation.agency.calls() == {}
    assert all(installation.partitions(asset)[0] == set() for asset in ASSETS)


def test_a_partition_of_a_client_that_is_gone_fails_with_a_sentence(
    installation: Installation,
) -> None:
    (day,) = installation.days_ago(1)
    installation.instance.add_dynamic_partitions("workspace", ["nobody"])

    result = installation.run(partition=f"{day}|nobody")

    assert not result.success
    assert installation.failure(result).startswith("There is no client nobody.")
