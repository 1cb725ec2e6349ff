"""A live sandbox: leads turn interested while it runs, as in a real agency or faster."""

from collections import Counter
from datetime import date, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import pytest

from bison_sandbox import SandboxError, SandboxOptions
from bison_sandbox.world.agency import build_agency
from bison_sandbox.world.live import chances, leads_a_second
from bison_sandbox.world.workspaces import Workspace, Workspaces
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver, wait_until
from kpi_pipeline_tests.bison_sandbox.running import TODAY, Bison, Stage, bison_on, options

CHICAGO = ZoneInfo("America/Chicago")
MONDAY = date(2026, 3, 16)


@pytest.fixture(scope="module")
def workspaces() -> list[Workspace]:
    return Workspaces(build_agency(7, 26, TODAY)).present()


def hourly(day: date, pace: float, clients: int = 26) -> list[float]:
    """The leads to expect of each hour of a date."""
    start = datetime(day.year, day.month, day.day, tzinfo=CHICAGO)
    hours = [start.replace(hour=hour) for hour in range(24)]
    return [3600 * leads_a_second(clients, pace, hour) for hour in hours]


def test_a_weekday_of_a_real_agency_brings_31_leads_in_business_hours_mostly() -> None:
    leads = hourly(MONDAY, 1.0)
    assert sum(leads) == pytest.approx(31)
    assert sum(leads[8:18]) == pytest.approx(0.9 * 31)
    assert min(leads) > 0
    assert sum(hourly(MONDAY, 0.5)) == pytest.approx(31 / 2)
    assert sum(hourly(MONDAY, 1.0, clients=52)) == pytest.approx(2 * 31)


def test_weekends_are_nearly_quiet() -> None:
    assert sum(hourly(MONDAY - timedelta(days=1), 1.0)) == pytest.approx(0.05 * 31)


def test_a_faster_pace_knows_neither_night_nor_weekend() -> None:
    for day in (MONDAY, MONDAY - timedelta(days=1)):
        assert hourly(day, 60.0) == pytest.approx([60 * 31 / 24] * 24)


def test_the_leads_of_a_day_come_from_some_12_of_26_clients_by_their_size(
    workspaces: list[Workspace],
) -> None:
    chance = Random(1)
    clients, leads = [], Counter[int]()
    for number in range(100):
        weights = chances(7, workspaces, MONDAY + timedelta(days=number))
        drawn = chance.choices([each.id for each in workspaces], weights, k=31)
        clients.append(len(set(drawn)))
        leads.update(drawn)
    assert 10.5 < sum(clients) / len(clients) < 13.5
    # Every client has its days, and the largest by far the most.
    assert leads.keys() == {each.id for each in workspaces}
    largest = max(workspaces, key=lambda each: each.profile.mails)
    (most, count), (_, second), *_ = leads.most_common()
    assert (most, count > 2 * second) == (largest.id, True)


def test_quiet_clients_have_no_lead_and_one_alone_has_all(workspaces: list[Workspace]) -> None:
    quiet = [each for each in workspaces if each.profile.quiet_phase is not None]
    silent = 0
    for number in range(30):
        day = MONDAY + timedelta(days=number)
        for each, weight in zip(workspaces, chances(7, workspaces, day), strict=True):
            if each.profile.is_quiet_on(day):
                assert weight == 0
                silent += 1
        busy = [each for each in workspaces if each not in quiet][number % 20]
        assert chances(7, [busy], day)[0] > 0
    assert silent == 3 * 20
    assert chances(7, [], MONDAY) == []


def test_a_live_sandbox_marks_and_delivers_while_its_clock_is_frozen(
    stage: Stage, receiver: Receiver
) -> None:
    with bison_on(stage, options(live=True, live_pace=50_000)) as bison:
        bison.parent_hook(f"{receiver.url}/in")
        events = [each.body["event"] for each in receiver.wait_for(30)]
        assert {event["instance_url"] for event in events} == {str(bison.http.base_url).rstrip("/")}
        truth = interested(bison)
    with bison_on(stage, options()) as still:
        before = interested(still)
    shown = Counter(event["workspace_id"] for event in events)
    assert len(shown) > 3
    marked = {workspace_id: count - before[workspace_id] for workspace_id, count in truth.items()}
    # More were marked between the two readings, and before anybody listened.
    assert all(marked[each] >= shown[each] for each in marked)
    assert min(marked.values()) == 0


def interested(bison: Bison) -> dict[int, int]:
    """Today's interested replies of each client that has a key."""
    return {
        int(row["bison_workspace_id"]): bison.series(TODAY, TODAY, key=row["api_key"])[
            "Interested"
        ][0]
        for row in bison.with_key()
    }


def test_a_sandbox_is_live_only_on_request(bison: Bison, receiver: Receiver) -> None:
    assert SandboxOptions().live is False
    bison.parent_hook(f"{receiver.url}/in")
    bison.mark(bison.with_key()[0])
    wait_until(lambda: bison.deliveries()["delivered"] == 1, bison.deliveries)
    assert len(receiver.received) == 1


@pytest.mark.parametrize("pace", [0, -1, float("nan"), float("inf"), 100_001])
def test_a_pace_out_of_range_is_refused_in_a_sentence(pace: float) -> None:
    with pytest.raises(SandboxError, match="live pace must be above 0 and at most 100000"):
        SandboxOptions(live_pace=pace)
