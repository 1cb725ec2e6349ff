"""Backfills of any shape, while clients come and go: exactly the right rows, and no others."""

from collections.abc import Callable, Iterator
from datetime import date, timedelta

import psutil
import pytest
from sqlalchemy import URL

from kpi_pipeline.db.registry.clients_csv import parse
from kpi_pipeline.db.tables import client_metrics, kpi_projections
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline_tests.agency import SERIES, write
from kpi_pipeline_tests.end_to_end.running import RunningAgency, Target, running_agency

pytestmark = [pytest.mark.long, pytest.mark.weekly, pytest.mark.timeout(1_200)]


@pytest.fixture(scope="module")
def agency(
    postgres: URL, administer: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningAgency]:
    """An agency of this module's own: its clients come and go."""
    with running_agency(postgres, administer, tmp_path_factory.mktemp("agency")) as agency:
        yield agency


def days_ago(agency: RunningAgency, first: int, last: int) -> list[date]:
    return days_between(agency.today - timedelta(days=first), agency.today - timedelta(days=last))


def keys(*targets: Target) -> set[tuple[str, date]]:
    return {(client, day) for target in targets for client, days in target.items() for day in days}


def wrong_rows(agency: RunningAgency, *targets: Target) -> list[tuple[str, date]]:
    rows = agency.rows()
    return [
        key
        for target in targets
        for client, days in target.items()
        for key, row in agency.expected(days, [client]).items()
        if any(rows[key][name] != value for name, value in row.items())
    ]


def stored(agency: RunningAgency) -> list[set[tuple[str, date]]]:
    return [set(agency.rows(table)) for table in (client_metrics, kpi_projections)]


def set_active(agency: RunningAgency, workspace: str, *, active: bool) -> None:
    statement = "UPDATE clients SET active = :active WHERE workspace = :workspace"
    agency.sql(statement, active=active, workspace=workspace)


def refresh_grid(agency: RunningAgency) -> None:
    assert agency.run(["client_registry"], {})[0] is RunStatus.SUCCESS


def test_a_backfill_of_any_shape_fills_exactly_its_partitions(agency: RunningAgency) -> None:
    grid = agency.workspaces
    hole = [*days_ago(agency, 190, 189), *days_ago(agency, 186, 186)]
    targets: dict[str, Target] = {
        "a few clients apart from each other": dict.fromkeys(
            [grid[1], grid[8], grid[20]], days_ago(agency, 210, 203)
        ),
        "few dates, clients in three groups": dict.fromkeys(
            [*grid[2:5], grid[9], *grid[15:18]], days_ago(agency, 196, 195)
        ),
        "dates with a hole": dict.fromkeys([grid[5], grid[6]], hole),
        "ragged": {grid[11]: days_ago(agency, 184, 182), grid[12]: days_ago(agency, 183, 180)},
        "one partition": {grid[25]: days_ago(agency, 178, 178)},
        "all clients on a few days": dict.fromkeys(grid, days_ago(agency, 176, 174)),
    }
    before = stored(agency)
    agency.forget_calls()

    ended = agency.backfill(*targets.values())

    assert dict(zip(targets, ended, strict=True)) == dict.fromkeys(targets, "COMPLETED_SUCCESS")
    wanted = keys(*targets.values())
    assert [after - was for after, was in zip(stored(agency), before, strict=True)] == [
        wanted,
        wanted,
    ]
    assert wrong_rows(agency, *targets.values()) == []
    # One call for each client of each: however many runs Dagster cut it into.
    calls = sum(call["path"] == SERIES for call in agency.bison.calls())
    assert calls <= sum(len(target) for target in targets.values()) + 2, "ragged: one for each run"


def test_a_client_that_is_added_in_mid_range_is_filled_with_its_neighbours_and_disturbs_none(
    agency: RunningAgency,
) -> None:
    dates = days_ago(agency, 170, 169)
    others: Target = dict.fromkeys(agency.workspaces[3:9], dates)
    under_way = agency.launch_backfill(others)
    before_it = set(agency.workspaces)
    agency.control("POST", "workspaces", name="Clover Middle")
    listed = agency.bison.http.get("/sandbox/clients.csv").text
    write(agency.app, parse(listed, agency.app.instances(), "clients.csv"))
    agency.refresh()
    (added,) = set(agency.workspaces) - before_it
    refresh_grid(agency)
    place = agency.workspaces.index(added)
    around: Target = dict.fromkeys(
        agency.workspaces[place - 1 : place + 2], days_ago(agency, 166, 165)
    )
    before = stored(agency)[0] - keys(others)

    assert agency.backfill(around) == ["COMPLETED_SUCCESS"]
    assert agency.end_of(under_way) == "COMPLETED_SUCCESS"

    assert stored(agency)[0] - before == keys(others, around)
    assert wrong_rows(agency, others, around) == []


def test_a_client_that_stops_being_active_is_skipped_and_its_neighbours_are_filled(
    agency: RunningAgency,
) -> None:
    left, stopped, right = agency.workspaces[13:16]
    dates = days_ago(agency, 160, 159)
    target: Target = dict.fromkeys([left, stopped, right], dates)
    before = stored(agency)[0]
    set_active(agency, stopped, active=False)
    try:
        # The grid does not know it yet: the range is asked for with the client in its middle.
        assert agency.backfill(target) == ["COMPLETED_FAILED"]
        # The backfill counts its partitions as failed. No run failed, and none is red.
        agency.poll(agency.is_at_rest, "the end of all runs")
        assert agency.failed_partitions("client_metrics", dates) == set()
        refresh_grid(agency)
        later: Target = dict.fromkeys([left, right], days_ago(agency, 156, 155))
        assert agency.backfill(later) == ["COMPLETED_SUCCESS"]
    finally:
        set_active(agency, stopped, active=True)
        refresh_grid(agency)

    healthy: Target = dict.fromkeys([left, right], dates)
    assert stored(agency)[0] - before == keys(healthy, later)
    assert wrong_rows(agency, healthy, later) == []


def test_every_process_that_writes_events_of_dagsters_writes_them_in_batches(
    agency: RunningAgency,
) -> None:
    # The code server's children are the one that has imported all, and the runs forked from it.
    processes = {child.name: psutil.Process(child.pid) for child in agency.children}
    below = processes["Dagster's code server"].children(recursive=True)
    forking = [it for it in below if "forkserver" in " ".join(it.cmdline())]
    writing = [processes["Dagster's page"], processes["Dagster's daemon"], *forking[:1]]
    assert [it.environ().get("DAGSTER_EVENT_BATCH_SIZE") for it in writing] == ["500"] * 3
