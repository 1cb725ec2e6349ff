"""What depends on the nightly sync waits for the one that was due before its own tick."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.orchestration import nightly_sync
from kpi_pipeline.orchestration.nightly_sync import (
    Progress,
    due_before,
    read_nightly_sync,
    wait_for_nightly_sync,
)
from kpi_pipeline.orchestration.runs import PARENT_RUN, WILL_RETRY
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.orchestration.installation import temporary_instance
from kpi_pipeline_tests.orchestration.nights import CLIENTS, TICK, Nights

CHICAGO = ZoneInfo("America/Chicago")


@pytest.fixture
def nights(engine: Engine, vault: Vault) -> Iterator[Nights]:
    with temporary_instance() as instance:
        yield Nights(instance, engine, vault)


def progress(nights: Nights) -> Progress:
    night = read_nightly_sync(nights.instance)
    assert night is not None
    return night.until(TICK)


def local(*when: int) -> datetime:
    return datetime(*when, tzinfo=CHICAGO)  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("tick", "due"),
    [
        (local(2026, 3, 18, 1, 10), local(2026, 3, 18, 0, 1)),
        (local(2026, 3, 18, 0, 1), local(2026, 3, 18, 0, 1)),
        (local(2026, 3, 18, 0, 0), local(2026, 3, 17, 0, 1)),
        # The day of 23 hours, and the second 1:10 of the day of 25.
        (local(2026, 3, 8, 3, 0), local(2026, 3, 8, 0, 1)),
        (local(2026, 11, 1, 1, 10).replace(fold=1), local(2026, 11, 1, 0, 1)),
    ],
)
def test_the_sync_that_a_tick_builds_on_is_the_last_one_that_was_due_until_then(
    tick: datetime, due: datetime
) -> None:
    settings = Settings(timezone=CHICAGO)
    assert due_before(tick.astimezone(UTC), settings) == due


def test_a_sync_is_over_when_all_its_runs_and_their_retries_have_ended(nights: Nights) -> None:
    nights.begin()
    assert progress(nights) is Progress.IN_PROGRESS, "its tick requests runs"
    first, second = nights.run(CLIENTS[:2]), nights.run(CLIENTS[2:])
    nights.end_of_tick()
    assert progress(nights) is Progress.NOT_STARTED, "all are in the queue"
    nights.start(first)
    assert progress(nights) is Progress.IN_PROGRESS
    nights.end(first, good=False)
    assert progress(nights) is Progress.IN_PROGRESS, "the second is in the queue"
    retry = nights.retry(first, CLIENTS[0])
    nights.end(second)
    assert progress(nights) is Progress.IN_PROGRESS
    nights.end(retry)
    assert progress(nights) is Progress.OVER


def test_a_run_whose_process_died_is_not_the_end_before_its_restart_has_ended(
    nights: Nights,
) -> None:
    nights.begin()
    run = nights.run(tags={WILL_RETRY: "true"})
    nights.end_of_tick()
    nights.end(run, good=False)
    assert progress(nights) is Progress.IN_PROGRESS
    again = nights.run(tags={PARENT_RUN: run.run_id})
    nights.start(again)
    nights.end(again)
    assert progress(nights) is Progress.OVER


def test_the_sync_of_another_tick_is_another_sync(nights: Nights) -> None:
    nights.begin(TICK - timedelta(days=1))
    nights.end_of_tick()
    assert progress(nights) is Progress.NOT_STARTED
    nights.begin()
    yesterdays = nights.run(tick=TICK - timedelta(days=1))
    todays = nights.run()
    nights.end_of_tick()
    nights.end(todays)
    assert progress(nights) is Progress.OVER
    nights.start(yesterdays)
    assert progress(nights) is Progress.OVER


def test_a_sync_that_will_not_come_is_not_waited_for(nights: Nights) -> None:
    assert read_nightly_sync(nights.instance) is None, "no daemon has seen its schedule"
    nights.begin(TICK - timedelta(days=3), on=False)
    nights.end_of_tick()
    assert progress(nights) is Progress.OVER, "it is off"
    nights.begin()
    nights.end_of_tick(good=False)
    assert progress(nights) is Progress.OVER, "its tick failed"


class Wait:
    """A wait of a run, on a clock of its own; at each poll, `then` happens at its second."""

    def __init__(self, nights: Nights, **then: Callable[[], object]) -> None:
        self.nights = nights
        self.seconds = 0.0
        self.then = {int(at.removeprefix("at_")): happen for at, happen in then.items()}

    def result(self) -> str | None:
        return wait_for_nightly_sync(
            self.nights.instance,
            Settings(timezone=CHICAGO),
            TICK,
            began=0.0,
            sleep=self._sleep,
            clock=lambda: self.seconds,
        )

    def _sleep(self, seconds: float) -> None:
        self.seconds += seconds
        for at in [at for at in self.then if at <= self.seconds]:
            self.then.pop(at)()


@pytest.fixture
def due(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nightly sync was due at TICK; who waits for it asks every 100 seconds."""
    monkeypatch.setattr(nightly_sync, "due_before", lambda tick, settings: tick)
    monkeypatch.setattr(nightly_sync, "_POLL_SECONDS", 100.0)


@pytest.mark.usefixtures("due")
def test_a_made_up_tick_waits_until_the_made_up_sync_has_begun_and_ended(nights: Nights) -> None:
    nights.begin(TICK - timedelta(days=3))
    nights.end_of_tick()
    runs = []

    def request() -> None:
        nights.begin()
        runs.append(nights.run())
        nights.end_of_tick()

    wait = Wait(
        nights,
        at_10=request,
        at_110=lambda: nights.start(runs[0]),
        at_600=lambda: nights.end(runs[0]),
    )
    assert wait.result() is None
    assert wait.seconds == 600


@pytest.mark.usefixtures("due")
def test_a_sync_that_takes_too_long_or_does_not_start_is_said(nights: Nights) -> None:
    nights.begin(TICK - timedelta(days=3))
    nights.end_of_tick()
    never = Wait(nights)
    told = never.result()
    assert told is not None
    assert told.endswith("has not started: numbers may still change.")
    assert never.seconds == 200

    nights.begin()
    run = nights.run()
    nights.end_of_tick()
    queued = Wait(nights)
    assert queued.result() is not None
    assert queued.seconds == 200, "its run may need the slot of the one that waits"
    nights.start(run)
    slow = Wait(nights)
    told = slow.result()
    assert told is not None
    assert told.endswith("is in progress: numbers may still change.")
    assert slow.seconds == 2700


@pytest.mark.usefixtures("due")
def test_on_a_usual_night_nothing_waits(nights: Nights) -> None:
    nights.begin()
    run = nights.run()
    nights.end_of_tick()
    nights.end(run)
    wait = Wait(nights)
    assert wait.result() is None
    assert wait.seconds == 0
