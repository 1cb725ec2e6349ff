from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import pytest

from kpi_pipeline.errors import KpiError
from kpi_pipeline.services.backfills import (
    BackfillTarget,
    UnknownBackfillError,
    backfill_address,
    launch_backfill,
    read_status,
    read_target,
)
from kpi_pipeline.services.dagster_page import DagsterPage, PageSilentError
from kpi_pipeline_tests.agency import ASSETS
from kpi_pipeline_tests.bison_sandbox.running import Stage
from kpi_pipeline_tests.cli.running import closed_port
from kpi_pipeline_tests.services.invented_backfills import (
    NOT_FOUND,
    AnsweringPage,
    answer,
    target,
)


def test_a_backfill_is_launched_for_each_asset_and_each_pair_of_client_and_date() -> None:
    launched = {"__typename": "LaunchBackfillSuccess", "backfillId": "abcdefgh"}
    page = AnsweringPage({"launchPartitionBackfill": launched})
    dates = [date(2026, 3, 1), date(2026, 3, 2)]
    of_two = BackfillTarget(ASSETS, {"heron": dates, "otter": dates})

    assert launch_backfill(page, of_two) == "abcdefgh"

    (query,) = page.queries
    assert query["params"]["assetSelection"] == [{"path": [asset]} for asset in ASSETS]
    assert query["params"]["partitionNames"] == [
        "2026-03-01|heron",
        "2026-03-02|heron",
        "2026-03-01|otter",
        "2026-03-02|otter",
    ]
    assert backfill_address(page, "abcdefgh") == "http://127.0.0.1:3000/runs/b/abcdefgh"


def test_a_backfill_that_dagster_rejects_is_an_error_with_its_reason() -> None:
    refused = {"__typename": "PythonError", "message": "no such partition: 2019-01-01|heron"}
    page = AnsweringPage({"launchPartitionBackfill": refused})
    with pytest.raises(KpiError) as error:
        launch_backfill(page, target("heron"))
    assert str(error.value) == (
        "Dagster did not start the backfill: no such partition: 2019-01-01|heron"
    )


def test_a_partition_counts_once_and_as_filled_only_when_each_asset_is() -> None:
    page = AnsweringPage(answer("REQUESTED", (10, 7, 1), (10, 6, 2), (10, 6, 1)))
    found = read_status(page, "abcdefgh")
    assert (found.targeted, found.filled, found.failed, found.left) == (10, 6, 2, 2)
    assert not found.ended
    assert found.ended_at is None
    assert page.queries == [{"id": "abcdefgh"}]


@pytest.mark.parametrize(
    ("name", "ended", "broken_off"),
    [
        ("REQUESTED", False, False),
        ("CANCELING", False, False),
        ("FAILING", False, False),
        ("COMPLETED_SUCCESS", True, False),
        ("COMPLETED_FAILED", True, False),
        ("CANCELED", True, True),
        ("FAILED", True, True),
    ],
)
def test_a_backfill_has_ended_when_dagster_does_nothing_more_for_it(
    name: str, ended: bool, broken_off: bool
) -> None:
    page = AnsweringPage(
        answer(name, endTimestamp=1_800_000_000.0, error={"message": "a daemon's error"})
    )
    found = read_status(page, "abcdefgh")
    assert (found.ended, found.broken_off) == (ended, broken_off)
    assert found.ended_at == datetime.fromtimestamp(1_800_000_000, UTC)
    assert found.error == "a daemon's error"


def targeting(assets: Sequence[str], partitions: Sequence[str] | None) -> dict[str, Any]:
    """Dagster's answer about the target of a backfill."""
    targeted = None if partitions is None else {"partitionKeys": list(partitions)}
    return {
        "partitionBackfillOrError": {
            "__typename": "PartitionBackfill",
            "assetSelection": [{"path": [asset]} for asset in assets],
            "assetBackfillData": {"rootTargetedPartitions": targeted},
        }
    }


def test_a_target_is_read_back_with_the_dates_of_each_client() -> None:
    keys = ["2026-03-01|heron", "2026-03-02|heron", "2026-03-02|otter-2"]
    page = AnsweringPage(targeting(["client_metrics", "raw_bison_stats", "client_registry"], keys))
    found = read_target(page, "abcdefgh")
    assert found.assets == ["raw_bison_stats", "client_metrics"]
    assert found.dates == {
        "heron": [date(2026, 3, 1), date(2026, 3, 2)],
        "otter-2": [date(2026, 3, 2)],
    }
    assert found.partitions == 3


@pytest.mark.parametrize("partitions", [None, [], ["2026-03-01"]])
def test_a_backfill_that_is_not_over_clients_and_dates_is_rejected(
    partitions: list[str] | None,
) -> None:
    page = AnsweringPage(targeting(ASSETS, partitions))
    with pytest.raises(KpiError, match="cannot say which clients and dates backfill abcdefgh"):
        read_target(page, "abcdefgh")


def test_an_unknown_backfill_is_named() -> None:
    for read in (read_status, read_target):
        with pytest.raises(UnknownBackfillError, match="Dagster knows no backfill abcdefgh"):
            read(AnsweringPage(NOT_FOUND), "abcdefgh")


def test_a_backfill_that_dagster_cannot_read_is_an_error_with_its_reason() -> None:
    broken = {"__typename": "PythonError", "message": "the definitions do not load"}
    with pytest.raises(KpiError, match="backfill abcdefgh: the definitions do not load"):
        read_status(AnsweringPage({"partitionBackfillOrError": broken}), "abcdefgh")


def test_a_page_that_is_not_running_is_silent() -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    with pytest.raises(PageSilentError) as error:
        DagsterPage(url).query("{ version }", {})
    assert str(error.value) == (
        f"Dagster's page at {url} does not answer (ConnectError). Is `kpi up` running?"
    )


def test_another_server_at_the_pages_address_counts_as_silent(stage: Stage) -> None:
    with pytest.raises(PageSilentError, match="does not answer"):
        DagsterPage(stage.url).query("{ version }", {})
