"""Backfills of any shape, while clients come and go: exactly the right rows, and no others."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta

import psutil
import pytest
from sqlalchemy import URL, text

from kpi_pipeline.db.clients import import_clients
from kpi_pipeline.db.clients_csv import parse
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.services.backfills import BackfillTarget, launch_backfill, read_status
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline_tests.end_to_end.agency import ASSETS, Agency
from kpi_pipeline_tests.end_to_end.runs import under_way
from kpi_pipeline_tests.end_to_end.starting import running_agency

pytestmark = [pytest.mark.long, pytest.mark.timeout(1_200)]

_SERIES = "/api/workspaces/v1.1/line-area-chart-stats"
Target = Mapping[str, Sequence[date]]


@pytest.fixture(scope="module")
def estate(
    postgres: URL, administer: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Agency]:
    """An agency of this module's own: its clients come and go."""
    with running_agency(postgres, administer, tmp_path_factory.mktemp("estate")) as agency:
        yield agency


def days_ago(agency: Agency, first: int, last: int) -> list[date]:
    return days_between(agency.today - timedelta(days=first), agency.today - timedelta(days=last))


def fill(agency: Agency, *targets: Target) -> list[str]:
    """Launch a backfill for each target, all at once; return how they ended."""
    launched = [launch_backfill(agency.page, BackfillTarget(ASSETS, it)) for it in targets]
    # To tell how each stands is work for the page, which shares the machine with the runs.
    agency.poll(
        lambda: all(read_status(agency.page, it).ended for it in launched),
        "all ends",
        seconds=900.0,
        every=2.0,
    )
    return [read_status(agency.page, it).name for it in launched]


def keys(*targets: Target) -> set[tuple[str, date]]:
    return {(client, day) for target in targets for client, days in target.items() for day in days}


def wrong_rows(agency: Agency, *targets: Target) -> list[tuple[str, date]]:
    rows = agency.rows()
    return [
        key
        for target in targets
        for client, days in target.items()
        for key, row in agency.expected([client], days).items()
        if any(rows[key][name] != value for name, value in row.items())
    ]


def stored(agency: Agency) -> tuple[set[tuple[str, date]], set[tuple[str, date]]]:
    return set(agency.rows()), set(agency.rows("kpi_projections"))


def set_active(agency: Agency, workspace: str, *, active: bool) -> None:
    with agency.app.engine.begin() as connection:
        statement = text("UPDATE clients SET active = :active WHERE workspace = :workspace")
        connection.execute(statement, {"active": active, "workspace": workspace})


def refresh_grid(agency: Agency) -> None:
    assert agency.run(["client_registry"], {})[0] is RunStatus.SUCCESS


def test_a_backfill_of_any_shape_fills_exactly_its_partitions(estate: Agency) -> None:
    grid = estate.grid
    hole = [*days_ago(estate, 190, 189), *days_ago(estate, 186, 186)]
    targets: dict[str, Target] = {
        "a few clients apart from each other": dict.fromkeys(
            [grid[1], grid[8], grid[20]], days_ago(estate, 210, 203)
        ),
        "few dates, clients in three groups": dict.fromkeys(
            [*grid[2:5], grid[9], *grid[15:18]], days_ago(estate, 196, 195)
        ),
        "dates with a hole": dict.fromkeys([grid[5], grid[6]], hole),
        "ragged": {grid[11]: days_ago(estate, 184, 182), grid[12]: days_ago(estate, 183, 180)},
        "one partition": {grid[25]: days_ago(estate, 178, 178)},
        "everybody on a few days": dict.fromkeys(grid, days_ago(estate, 176, 174)),
    }
    before = stored(estate)
    estate.control("DELETE", "calls")

    ended = fill(estate, *targets.values())

    assert dict(zip(targets, ended, strict=True)) == dict.fromkeys(targets, "COMPLETED_SUCCESS")
    wanted = keys(*targets.values())
    assert [after - was for after, was in zip(stored(estate), before, strict=True)] == [
        wanted,
        wanted,
    ]
    assert wrong_rows(estate, *targets.values()) == []
    # One call for each client of each: however many runs Dagster cut it into.
    log = estate.sandbox.get("/sandbox/calls").json()["calls"]
    calls = sum(call["path"] == _SERIES for call in log)
    assert calls <= sum(len(target) for target in targets.values()) + 2, "ragged: one for each run"


def test_a_client_that_is_added_in_mid_range_is_filled_with_its_neighbours_and_disturbs_none(
    estate: Agency,
) -> None:
    dates = days_ago(estate, 170, 169)
    others: Target = dict.fromkeys(estate.grid[3:9], dates)
    under_way = launch_backfill(estate.page, BackfillTarget(ASSETS, others))
    estate.control("POST", "workspaces", {"name": "Clover Middle"})
    listed = estate.sandbox.get("/sandbox/clients.csv").text
    records = parse(listed, estate.app.instances(), "clients.csv")
    with estate.app.engine.begin() as connection:
        slugs = import_clients(
            connection, records, targets_from=date(2020, 1, 1), vault=estate.app.vault
        )
    (added,) = set(slugs) - set(estate.ids)
    rows = {int(row["bison_workspace_id"]): row for row in csv.DictReader(listed.split("\n"))}
    estate.ids[added] = max(rows)
    estate.table[max(rows)] = rows[max(rows)]
    refresh_grid(estate)
    place = sorted([*estate.grid, added]).index(added)
    around: Target = dict.fromkeys(
        [estate.grid[place - 1], added, estate.grid[place]], days_ago(estate, 166, 165)
    )
    before = stored(estate)[0] - keys(others)

    assert fill(estate, around) == ["COMPLETED_SUCCESS"]
    estate.poll(lambda: read_status(estate.page, under_way).ended, "the end of the other")

    assert read_status(estate.page, under_way).name == "COMPLETED_SUCCESS"
    assert stored(estate)[0] - before == keys(others, around)
    assert wrong_rows(estate, others, around) == []


def test_a_client_that_stops_being_active_fails_alone_and_its_neighbours_are_filled(
    estate: Agency,
) -> None:
    left, stopped, right = estate.grid[13:16]
    dates = days_ago(estate, 160, 159)
    target: Target = dict.fromkeys([left, stopped, right], dates)
    before = stored(estate)[0]
    set_active(estate, stopped, active=False)
    try:
        # The grid does not know it yet: the range is asked for with the client in its middle.
        assert fill(estate, target) == ["COMPLETED_FAILED"]
        # It is asked for once more, alone: its partitions are red when that has failed, too.
        red = {f"{day}|{stopped}" for day in dates}
        estate.poll(
            lambda: (
                not under_way(estate.page)
                and estate.failed_partitions("client_metrics", dates) == red
            ),
            "the red of the client that stopped, and of no other",
        )
        refresh_grid(estate)
        later: Target = dict.fromkeys([left, right], days_ago(estate, 156, 155))
        assert fill(estate, later) == ["COMPLETED_SUCCESS"]
    finally:
        set_active(estate, stopped, active=True)
        refresh_grid(estate)

    healthy: Target = dict.fromkeys([left, right], dates)
    assert stored(estate)[0] - before == keys(healthy, later)
    assert wrong_rows(estate, healthy, later) == []


def test_every_process_that_writes_events_of_dagsters_writes_them_in_batches(
    estate: Agency,
) -> None:
    # The code server's children are the one that has imported all, and the runs forked from it.
    processes = {child.name: psutil.Process(child.pid) for child in estate.children}
    below = processes["Dagster's code server"].children(recursive=True)
    forking = [it for it in below if "forkserver" in " ".join(it.cmdline())]
    writing = [processes["Dagster's page"], processes["Dagster's daemon"], *forking[:1]]
    assert [it.environ().get("DAGSTER_EVENT_BATCH_SIZE") for it in writing] == ["500"] * 3
