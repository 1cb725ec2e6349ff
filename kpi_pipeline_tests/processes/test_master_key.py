"""Two processes on one master key, while its user moves about in Email Bison's own pages."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from random import Random
from urllib.parse import parse_qs

import httpx
import pytest

from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline_tests.agency import SERIES, Agency
from kpi_pipeline_tests.bison_sandbox.running import TODAY, Bison, Stage, bison_on, options
from kpi_pipeline_tests.processes.workers import (
    Call,
    Outcome,
    Reading,
    Task,
    at_work,
    calls_of,
    true_days,
)

READINGS_EACH = 60
# Every reading has a period of its own, by which the sandbox's log tells them apart.
PERIODS = [
    (TODAY - timedelta(days=start + length), TODAY - timedelta(days=start))
    for start in range(50)
    for length in range(3, 7)
]


@pytest.fixture
def bison(stage: Stage) -> Iterator[Bison]:
    """A sandbox that takes a few milliseconds, so that moves really fall between two calls."""
    with bison_on(stage, options(latency=0.003)) as fresh:
        # The series takes longest, as it does live.
        fresh.fault("slow", path=SERIES, seconds=0.03)
        yield fresh


class Wanderer:
    """The user of the master key, who moves to one of some workspaces at random moments.

    Who moves the key away and back between the two looks of one reading can't be told by anybody:
    Email Bison's answers do not say whose they are. Those looks lie some 0.1 s apart, so a user who
    stays at least 0.3 s, and never goes straight back to where it was, can't do that.
    """

    def __init__(self, bison: Bison, places: Sequence[int]) -> None:
        self._url = str(bison.http.base_url)
        self._places = places
        self._whims = Random(7)

    @contextmanager
    def wandering(self) -> Iterator[None]:
        enough = threading.Event()
        thread = threading.Thread(target=self._wander, args=(enough,))
        thread.start()
        try:
            yield
        finally:
            enough.set()
            thread.join()

    def _wander(self, enough: threading.Event) -> None:
        before = None
        with httpx.Client(base_url=self._url) as http:
            while not enough.wait(self._whims.uniform(0.3, 2.1)):
                here = http.get("/sandbox/ui-user").json()["workspace_id"]
                place = self._whims.choice([it for it in self._places if it not in (here, before)])
                body = {"workspace_id": place}
                http.post("/sandbox/ui-user", json=body).raise_for_status()
                before = here


def tasks_of(keyless: Sequence[str]) -> list[Task]:
    order = Random(7)
    periods = order.sample(PERIODS, k=2 * READINGS_EACH)
    readings = [Reading(order.choice(keyless), first, last) for first, last in periods]
    return [
        Task(readings=half, longest_pause=0.02)
        for half in (readings[:READINGS_EACH], readings[READINGS_EACH:])
    ]


@pytest.mark.long
def test_two_processes_never_take_another_workspaces_numbers_however_often_the_key_is_moved(
    agency: Agency, bison: Bison
) -> None:
    first, last = min(start for start, _ in PERIODS), TODAY
    truths = {slug: true_days(bison, number, first, last) for slug, number in agency.ids.items()}
    ids = [agency.ids[slug] for slug in agency.keyless]
    others = [agency.ids[slug] for slug in agency.keyed[:2]]
    wanderer = Wanderer(bison, [*ids, *others])
    agency.forget_calls()

    with at_work(*tasks_of(agency.keyless)) as workers, wanderer.wandering():
        by_process = [worker.outcomes(600) for worker in workers]

    outcomes = [outcome for of_one in by_process for outcome in of_one]
    believed = [outcome for outcome in outcomes if outcome.days is not None]
    assert_one_call_after_another(calls_of(bison))
    assert len(outcomes) == 2 * READINGS_EACH
    assert {it.error_type for it in outcomes if it.days is None} <= {"WrongWorkspace"}
    assert len(outcomes) - len(believed) <= len(outcomes) / 10
    for outcome in believed:
        # By name: a failure says whose numbers these are.
        period = days_between(outcome.reading.first, outcome.reading.last)
        whose = [s for s, days in truths.items() if {it: days[it] for it in period} == outcome.days]
        assert whose == [outcome.reading.workspace]
    assert_each_was_answered_for_its_own(agency, bison, believed)
    assert_both_alternate(by_process)


def assert_each_was_answered_for_its_own(
    agency: Agency, bison: Bison, believed: Sequence[Outcome]
) -> None:
    """By the log; and moves really fell into readings, or all this would say nothing."""
    calls: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in calls_of(bison, SERIES):
        asked = parse_qs(call.query)
        calls[asked["start_date"][0], asked["end_date"][0]].append(call)
    thrown_away = []
    for outcome in believed:
        wanted = agency.ids[outcome.reading.workspace]
        *repeated, taken = calls[str(outcome.reading.first), str(outcome.reading.last)]
        assert (taken.workspace_id, taken.status) == (wanted, 200)
        thrown_away += [call.workspace_id != wanted for call in repeated]
    assert len(thrown_away) >= 2, "the user has not moved within enough readings"
    assert any(thrown_away), "no answer was another workspace's"


def assert_one_call_after_another(calls: Sequence[Call]) -> None:
    assert {call.key for call in calls} == {"master"}
    overlaps = [(one, other) for one, other in pairwise(calls) if one.answered() > other.at]
    assert overlaps == []


def assert_both_alternate(by_process: Sequence[Sequence[Outcome]]) -> None:
    """Both had the key again and again, rather than one after the other was done."""
    readings = sorted(
        (outcome.ended_at, process)
        for process, outcomes in enumerate(by_process)
        for outcome in outcomes
    )
    assert sum(one != other for (_, one), (_, other) in pairwise(readings)) >= 5
