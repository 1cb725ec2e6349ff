"""What the schedules of the syncs request at a tick, as Dagster evaluates them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from itertools import islice, takewhile
from typing import cast
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster import DagsterInstance
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.test_utils import create_run_for_test
from dagster._utils.schedules import schedule_execution_time_iterator

from kpi_pipeline.app import AppContext
from kpi_pipeline.checks.automation import SYNC_SCHEDULES
from kpi_pipeline.definitions import build_definitions
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.automation.schedules import build_sync_schedules, intraday_cron
from kpi_pipeline.orchestration.partitions import WORKSPACE, kpi_grid
from kpi_pipeline.orchestration.runs import BACKFILL, RANGE_END, RANGE_START, RUN_KEY, SCHEDULE
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.orchestration.installation import shared_definitions
from kpi_pipeline_tests.orchestration.ticks import ActiveClients, evaluate_schedule

CHICAGO = ZoneInfo("America/Chicago")
GRID_ASSETS = {"raw_bison_stats", "kpi_projections", "client_metrics"}


def local(*when: int, fold: int = 0) -> datetime:
    year, month, day, hour, minute = when
    return datetime(year, month, day, hour, minute, fold=fold, tzinfo=CHICAGO)


def add_clients(instance: DagsterInstance, count: int) -> list[str]:
    clients = [f"client-{number:03}" for number in range(count)]
    instance.add_dynamic_partitions(WORKSPACE, clients)
    return clients


def evaluate(
    name: str, instance: DagsterInstance, tick: datetime, app: AppResource | None = None
) -> tuple[list[dg.RunRequest], str | None]:
    definitions = shared_definitions()
    return evaluate_schedule(definitions, name, instance, tick, app or ActiveClients())


def assets_of(request: dg.RunRequest) -> set[str]:
    return {key.to_user_string() for key in request.asset_selection or ()}


def on_the_grid(requests: Sequence[dg.RunRequest]) -> list[dg.RunRequest]:
    return [request for request in requests if assets_of(request) == GRID_ASSETS]


def covered(
    instance: DagsterInstance, request: dg.RunRequest, now: datetime
) -> list[tuple[date, str]]:
    """The partitions of a request, as Dagster reads its tags."""
    span = dg.PartitionKeyRange(request.tags[RANGE_START], request.tags[RANGE_END])
    with partition_loading_context(now, instance):
        keys = kpi_grid(load_settings(), date(2026, 1, 1)).get_partition_keys_in_range(span)
    pairs = [cast(dg.MultiPartitionKey, key).keys_by_dimension for key in keys]
    return [(date.fromisoformat(pair["date"]), pair[WORKSPACE]) for pair in pairs]


@pytest.mark.parametrize(
    ("tick", "first", "last"),
    [
        (local(2026, 3, 18, 0, 1), date(2026, 3, 11), date(2026, 3, 18)),
        (local(2026, 3, 1, 0, 1), date(2026, 2, 22), date(2026, 3, 1)),
        (local(2026, 1, 1, 0, 1), date(2025, 12, 25), date(2026, 1, 1)),
        (local(2026, 3, 8, 0, 1), date(2026, 3, 1), date(2026, 3, 8)),
        (local(2026, 3, 9, 0, 1), date(2026, 3, 2), date(2026, 3, 9)),
        (local(2025, 11, 2, 0, 1), date(2025, 10, 26), date(2025, 11, 2)),
        (local(2025, 11, 3, 0, 1), date(2025, 10, 27), date(2025, 11, 3)),
    ],
    ids=["midweek", "1 March", "1 January", "23 h", "after 23 h", "25 h", "after 25 h"],
)
def test_the_nightly_sync_closes_the_last_seven_days_and_opens_today(
    instance: DagsterInstance, tick: datetime, first: date, last: date
) -> None:
    clients = add_clients(instance, 3)

    requests, _ = evaluate("daily_kpi_sync", instance, tick)

    (request,) = on_the_grid(requests)
    dates = days_between(first, last)
    assert len(dates) == 8
    # A tick that is made up hours late, in Dagster's time, covers its own days.
    late = tick + timedelta(hours=40)
    expected = [(day, client) for day in dates for client in clients]
    assert sorted(covered(instance, request, late)) == expected


@pytest.mark.parametrize(
    ("tick", "dates"),
    [
        (local(2026, 3, 18, 14, 30), [date(2026, 3, 17), date(2026, 3, 18)]),
        (local(2026, 3, 1, 0, 30), [date(2026, 2, 28), date(2026, 3, 1)]),
        (local(2025, 12, 31, 23, 30), [date(2025, 12, 30), date(2025, 12, 31)]),
        (local(2026, 3, 17, 19, 30), [date(2026, 3, 16), date(2026, 3, 17)]),
    ],
    ids=["afternoon", "after midnight", "before it", "tomorrow already in UTC"],
)
def test_the_intraday_refresh_covers_yesterday_and_today(
    instance: DagsterInstance, tick: datetime, dates: list[date]
) -> None:
    clients = add_clients(instance, 2)

    ((request,), _) = evaluate("intraday_refresh", instance, tick)

    assert assets_of(request) == GRID_ASSETS
    expected = [(day, client) for day in dates for client in clients]
    assert sorted(covered(instance, request, tick)) == expected


@pytest.mark.parametrize(
    ("clients", "sizes"), [(26, [26]), (50, [50]), (51, [50, 1]), (120, [50, 50, 20])]
)
@pytest.mark.parametrize("name", ["daily_kpi_sync", "intraday_refresh"])
def test_runs_of_at_most_50_clients_leave_no_client_out_and_overlap_nowhere(
    instance: DagsterInstance, name: str, clients: int, sizes: list[int]
) -> None:
    known = add_clients(instance, clients)
    tick = local(2026, 3, 18, 0, 30)

    requests, _ = evaluate(name, instance, tick)

    groups = [
        {client for _, client in covered(instance, request, tick)}
        for request in on_the_grid(requests)
    ]
    assert [len(group) for group in groups] == sizes
    assert sorted(client for group in groups for client in group) == known


def test_the_number_of_clients_in_a_run_is_a_setting(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KPI_WORKSPACES_PER_RUN", "2")
    add_clients(instance, 5)

    requests, _ = evaluate("intraday_refresh", instance, local(2026, 3, 18, 9, 30))

    assert len(requests) == 3


def test_the_nightly_sync_refreshes_the_registry_first_and_alone(
    instance: DagsterInstance,
) -> None:
    add_clients(instance, 60)

    requests, _ = evaluate("daily_kpi_sync", instance, local(2026, 3, 18, 0, 1))

    registry, *rest = requests
    assert assets_of(registry) == {"client_registry"}
    assert not {RANGE_START, RANGE_END} & registry.tags.keys()
    assert [assets_of(request) for request in rest] == [GRID_ASSETS] * 2


@pytest.mark.parametrize("name", ["daily_kpi_sync", "intraday_refresh"])
def test_no_request_names_a_range_and_a_single_partition_at_once(
    instance: DagsterInstance, name: str
) -> None:
    add_clients(instance, 60)

    requests, _ = evaluate(name, instance, local(2026, 3, 18, 0, 1))

    for request in on_the_grid(requests):
        assert {RANGE_START, RANGE_END} <= request.tags.keys()
        assert request.partition_key is None
        assert not any(tag.split("/")[:2] == ["dagster", "partition"] for tag in request.tags)


@pytest.mark.parametrize("name", ["daily_kpi_sync", "intraday_refresh"])
def test_a_tick_that_is_evaluated_again_requests_the_same_runs(
    instance: DagsterInstance, name: str
) -> None:
    add_clients(instance, 120)
    # The clock was set back on 2 November: 1:30 comes twice, an hour apart.
    ticks = [
        local(2025, 11, 2, 0, 1),
        local(2025, 11, 2, 1, 30),
        local(2025, 11, 2, 1, 30, fold=1),
    ]
    assert ticks[2].timestamp() - ticks[1].timestamp() == 3600

    def keys() -> list[str | None]:
        return [it.run_key for tick in ticks for it in evaluate(name, instance, tick)[0]]

    first = keys()
    assert None not in first
    assert len(set(first)) == len(first) >= 9
    assert keys() == first


@pytest.mark.parametrize(
    ("unfinished", "sentence"),
    [
        ("intraday_refresh", "1 run of intraday_refresh is queued or in progress."),
        ("daily_kpi_sync", "1 run of daily_kpi_sync is queued or in progress."),
    ],
)
def test_a_refresh_that_is_due_while_a_sync_runs_is_skipped_and_says_so(
    instance: DagsterInstance, unfinished: str, sentence: str
) -> None:
    add_clients(instance, 2)
    tick = local(2026, 3, 18, 9, 22)
    earlier = {SCHEDULE: unfinished, RUN_KEY: f"{tick - timedelta(minutes=15)} client-000"}
    run = sync_run(instance, earlier)

    assert evaluate("intraday_refresh", instance, tick) == (
        [],
        f"{sentence} The next refresh fetches the same days.",
    )

    instance.report_run_canceled(run)
    requests, skipped = evaluate("intraday_refresh", instance, tick)
    assert (len(requests), skipped) == (1, None)


def test_a_refresh_waits_for_no_backfill_no_registry_and_no_run_of_its_own_tick(
    instance: DagsterInstance,
) -> None:
    add_clients(instance, 51)
    tick = local(2026, 3, 18, 9, 22)
    (first, second), _ = evaluate("intraday_refresh", instance, tick)
    sync_run(instance, {BACKFILL: "a-backfill"})
    sync_run(instance, {SCHEDULE: "daily_kpi_sync"}, assets={"client_registry"})
    # The daemon died between the two requests: the tick is evaluated again.
    sync_run(instance, {SCHEDULE: "intraday_refresh", RUN_KEY: str(first.run_key)})

    again, _ = evaluate("intraday_refresh", instance, tick)

    assert [it.run_key for it in again] == [first.run_key, second.run_key]


@pytest.mark.parametrize(
    ("minutes", "minutes_of_the_day"),
    [
        (1, range(1440)),
        (2, range(1, 1440, 2)),
        (15, range(7, 1440, 15)),
        (60, range(30, 1440, 60)),
        (120, range(30, 1440, 120)),
        (420, [30, 450, 870, 1290]),
        (1440, [30]),
    ],
)
def test_the_refresh_ticks_amid_the_intervals_of_an_hour_or_a_day(
    minutes: int, minutes_of_the_day: Sequence[int]
) -> None:
    noon = local(2026, 3, 17, 12, 0).timestamp()
    midnight = local(2026, 3, 18, 0, 0)
    day = [midnight + timedelta(minutes=it) for it in minutes_of_the_day]

    ticks = schedule_execution_time_iterator(noon, intraday_cron(minutes), CHICAGO.key)

    found = list(takewhile(lambda it: it < midnight + timedelta(days=1), ticks))
    assert [it for it in found if it >= midnight] == day


def sync_run(
    instance: DagsterInstance, tags: Mapping[str, str], assets: Collection[str] = GRID_ASSETS
) -> dg.DagsterRun:
    run: dg.DagsterRun = create_run_for_test(
        instance,
        asset_selection=frozenset(map(dg.AssetKey, assets)),
        status=dg.DagsterRunStatus.STARTED,
        tags=tags,
    )
    return run


@pytest.mark.parametrize("name", SYNC_SCHEDULES)
def test_the_partitions_of_inactive_clients_are_not_synced_while_they_stay(
    instance: DagsterInstance, name: str
) -> None:
    tick = local(2026, 3, 18, 9, 30)
    clients = add_clients(instance, 6)
    active = [*clients[:2], *clients[3:5], "imported-but-not-in-the-grid-yet"]

    requests, _ = evaluate(name, instance, tick, ActiveClients(active=active))

    groups = [covered(instance, it, tick) for it in on_the_grid(requests)]
    assert [sorted({slug for _, slug in group}) for group in groups] == [clients[:2], clients[3:5]]


class NoDatabase(AppResource):
    @contextmanager
    def opened(self) -> Iterator[AppContext]:
        raise dg.Failure("The database is unreachable.")
        yield


def test_a_night_without_the_clients_covers_all_partitions(instance: DagsterInstance) -> None:
    tick = local(2026, 3, 18, 0, 1)
    clients = add_clients(instance, 3)

    requests, _ = evaluate("daily_kpi_sync", instance, tick, NoDatabase())

    (request,) = on_the_grid(requests)
    assert {slug for _, slug in covered(instance, request, tick)} == set(clients)


def test_without_clients_the_intraday_refresh_is_skipped_and_says_how_to_add_them(
    instance: DagsterInstance,
) -> None:
    requests, skipped = evaluate("intraday_refresh", instance, local(2026, 3, 18, 9, 30))

    assert requests == []
    assert skipped is not None
    assert "kpi clients import" in skipped


def test_without_clients_the_nightly_sync_still_refreshes_the_registry(
    instance: DagsterInstance,
) -> None:
    requests, _ = evaluate("daily_kpi_sync", instance, local(2026, 3, 18, 0, 1))

    assert [assets_of(request) for request in requests] == [{"client_registry"}]


def test_both_schedules_are_on_from_the_first_start() -> None:
    definitions = build_definitions(load_settings())

    schedules = {it.name: it for it in build_sync_schedules(load_settings())}
    assert schedules.keys() == {"daily_kpi_sync", "intraday_refresh"}
    assert schedules.keys() == set(SYNC_SCHEDULES), "alerts know them by these names"
    for name in schedules:
        status = definitions.resolve_schedule_def(name).default_status
        assert status is dg.DefaultScheduleStatus.RUNNING


def test_ticks_come_at_a_minute_past_midnight_where_clocks_change_too() -> None:
    schedule = build_definitions(load_settings()).resolve_schedule_def("daily_kpi_sync")

    for start in (date(2026, 3, 6), date(2025, 10, 31)):
        noon = local(start.year, start.month, start.day, 12, 0).timestamp()
        ticks = schedule_execution_time_iterator(
            noon, schedule.cron_schedule, schedule.execution_timezone
        )
        assert [it.astimezone(CHICAGO).replace(tzinfo=None) for it in islice(ticks, 4)] == [
            datetime.combine(start + timedelta(days=number), time(0, 1)) for number in range(1, 5)
        ]
