"""Waiting events are stored together, and a bad one does not affect the others."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import pytest
from sqlalchemy.exc import OperationalError, ProgrammingError

from kpi_pipeline.db.events.inbox import Receipt
from kpi_pipeline.domain.events.event import EventStatus
from kpi_pipeline.gateway import batches
from kpi_pipeline.gateway.batches import Arrival, Batches, UnavailableError

Outcomes = Sequence[Receipt | BaseException]


def arrival(number: int) -> Arrival:
    return Arrival("main", str(number).encode(), datetime.now(UTC))


def receipt(arrival: Arrival) -> Receipt:
    return Receipt(int(arrival.body), EventStatus.APPLIED, True, None)


class Store:
    """A fake inbox that records each call, and blocks the first until it is released."""

    def __init__(self, fail: Callable[[Sequence[Arrival]], None] = lambda _: None) -> None:
        self.calls: list[list[int]] = []
        self.go_on = threading.Event()
        self._fail = fail

    def __call__(self, arrivals: Sequence[Arrival]) -> list[Receipt]:
        self.calls.append([int(it.body) for it in arrivals])
        assert self.go_on.wait(20)
        self._fail(arrivals)
        return [receipt(it) for it in arrivals]


def outcomes(store: Store, count: int, *, gone: Sequence[int] = ()) -> Outcomes:
    """What becomes of arrivals 0, 1, 2 and so on, the first of which is under way as they come.

    Those who sent the `gone` do not wait for their answers.
    """

    async def all_of_them() -> Outcomes:
        group = Batches(store)
        async with group.working():
            tasks = [asyncio.create_task(group.ingest(arrival(0)))]
            while not store.calls:
                await asyncio.sleep(0)
            tasks += [asyncio.create_task(group.ingest(arrival(n))) for n in range(1, count)]
            await asyncio.sleep(0)
            for number in gone:
                tasks[number].cancel()
            store.go_on.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(all_of_them())


def test_events_that_arrive_during_a_call_are_stored_by_the_next() -> None:
    store = Store()
    assert outcomes(store, 20) == [receipt(arrival(n)) for n in range(20)]
    assert store.calls == [[0], list(range(1, 20))]


def test_one_call_stores_at_most_fifty() -> None:
    store = Store()
    assert outcomes(store, 102) == [receipt(arrival(n)) for n in range(102)]
    assert [len(call) for call in store.calls] == [1, 50, 50, 1]


def test_an_event_that_cannot_be_stored_does_not_affect_the_others() -> None:
    def poisonous(arrivals: Sequence[Arrival]) -> None:
        if any(it.body == b"7" for it in arrivals):
            raise ValueError("number 7 fails")

    found = outcomes(Store(poisonous), 10)
    assert isinstance(found[7], ValueError)
    others = [n for n in range(10) if n != 7]
    assert [found[n] for n in others] == [receipt(arrival(n)) for n in others]


@pytest.mark.parametrize("kind", [OperationalError, ProgrammingError])
def test_while_the_database_is_down_or_behind_events_are_not_tried_one_by_one(
    kind: type[OperationalError | ProgrammingError],
) -> None:
    def away(_: Sequence[Arrival]) -> None:
        raise kind("SELECT 1", {}, Exception("no answer"))

    store = Store(away)
    found = outcomes(store, 10)
    assert [type(it) for it in found] == [UnavailableError] * 10
    assert "no answer" not in str(found)
    assert len(store.calls) == 2


def test_events_beyond_the_longest_queue_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_WAITING", 5)
    found = outcomes(Store(), 10)
    assert found[:6] == [receipt(arrival(n)) for n in range(6)]
    assert [type(it) for it in found[6:]] == [UnavailableError] * 4


def test_a_sender_that_disconnects_does_not_affect_the_others() -> None:
    store = Store()
    found = outcomes(store, 5, gone=[2])
    assert isinstance(found[2], asyncio.CancelledError)
    assert [found[n] for n in (0, 1, 3, 4)] == [receipt(arrival(n)) for n in (0, 1, 3, 4)]
    # What is there is stored, all the same.
    assert store.calls == [[0], [1, 2, 3, 4]]
