import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from types import SimpleNamespace

import pytest
from tenacity import RetryCallState, Retrying

from kpi_pipeline.bison.calls import BACKOFF
from kpi_pipeline.retry import (
    Backoff,
    async_tries,
    is_transient_status,
    retry_after_seconds,
    retry_for,
)

NO_PAUSE = Backoff(first=0, longest=0, jitter=0)


def pause_after(backoff: Backoff, tries: int) -> float:
    state = RetryCallState(Retrying(), fn=None, args=(), kwargs={})
    state.attempt_number = tries
    return backoff.pause(state)


@pytest.mark.parametrize(
    ("tries", "base"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 20), (99, 20)]
)
def test_pauses_double_up_to_the_longest_and_have_jitter(tries: int, base: float) -> None:
    pauses = {pause_after(Backoff(first=1, longest=20, jitter=0.5), tries) for _ in range(20)}
    assert all(base <= pause <= base + 0.5 for pause in pauses)
    assert len(pauses) > 1


def test_calls_to_email_bison_pause_at_least_a_second_and_at_most_half_a_minute() -> None:
    assert 1 <= pause_after(BACKOFF, 1) <= 2
    assert 29 <= pause_after(BACKOFF, 100) <= 30


class Work:
    """Fails with the given errors, one at each try, and then succeeds."""

    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)
        self.tries = 0

    def __call__(self) -> str:
        self.tries += 1
        if self._errors:
            raise self._errors.pop(0)
        return "done"


class Notes:
    """Notes what the policy reports."""

    def __init__(self) -> None:
        self.pauses: list[tuple[str, float]] = []

    def pause(self, error: BaseException, seconds: float) -> None:
        self.pauses.append((str(error), seconds))


def is_os_error(error: BaseException) -> bool:
    return isinstance(error, OSError)


async def tried(
    work: Callable[[], str], attempts: int, notes: Notes, asked: float | None = None
) -> str:
    async for attempt in async_tries(
        attempts, NO_PAUSE, is_os_error, asked_pause=lambda _: asked, before_pause=notes.pause
    ):
        with attempt:
            done = work()
    return done


def test_an_async_call_is_retried_after_transient_errors_and_each_pause_is_reported() -> None:
    work, notes = Work(OSError("one"), OSError("two")), Notes()
    assert asyncio.run(tried(work, 3, notes)) == "done"
    assert (work.tries, notes.pauses) == (3, [("one", 0), ("two", 0)])


def test_an_error_that_names_its_pause_gets_that_pause() -> None:
    notes = Notes()
    asyncio.run(tried(Work(OSError("one")), 2, notes, asked=0.01))
    assert notes.pauses == [("one", 0.01)]


def test_the_error_of_the_last_async_try_is_raised_as_it_is() -> None:
    work, notes = Work(*(OSError(str(n)) for n in range(9))), Notes()
    with pytest.raises(OSError, match=r"^2$"):
        asyncio.run(tried(work, 3, notes))
    assert (work.tries, len(notes.pauses)) == (3, 2)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_that_is_not_transient_is_raised_at_once(error: BaseException) -> None:
    work, notes = Work(error), Notes()
    with pytest.raises(type(error)):
        asyncio.run(tried(work, 3, notes))
    with pytest.raises(type(error)):
        retry_for(9, second := Work(error), NO_PAUSE, is_os_error, before_first_pause=notes_none)
    assert (work.tries, second.tries, notes.pauses) == (1, 1, [])


def notes_none(_: BaseException) -> None:
    raise AssertionError("there is no pause")


def test_work_is_retried_for_a_time_that_starts_with_its_first_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = count(start=100)
    clock = SimpleNamespace(monotonic=lambda: float(next(seconds)))
    monkeypatch.setattr("kpi_pipeline.retry.time", clock)
    errors = [OSError(str(n)) for n in range(9)]
    reported: list[str] = []
    work = Work(*errors)

    with pytest.raises(OSError, match=r"^3$"):
        retry_for(
            3, work, NO_PAUSE, is_os_error, before_first_pause=lambda it: reported.append(str(it))
        )

    # The first error starts the clock; the errors after it come one second apart.
    assert work.tries == 4
    assert reported == ["0"]


def test_no_time_at_all_means_a_single_try() -> None:
    work = Work(OSError("one"))
    with pytest.raises(OSError, match="one"):
        retry_for(0, work, NO_PAUSE, is_os_error, before_first_pause=notes_none)
    assert work.tries == 1


def test_one_place_says_which_statuses_are_transient() -> None:
    transient = [status for status in range(100, 600) if is_transient_status(status)]
    assert transient == [408, 429, *range(500, 600)]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 1),
        ("120", 120),
        ("86400", 120),
        (" 3 ", 3),
        ("Wed, 04 Mar 2026 11:00:00 GMT", 1),
        ("Thu, 05 Mar 2026 12:00:00 GMT", 120),
        ("Wed, 04 Mar 2026 12:00:05 -0000", 5),
        ("Wed, 04 Mar 2026 13:00:05 +0100", 5),
    ],
)
def test_retry_after_is_kept_between_one_second_and_two_minutes(
    header: str, seconds: float
) -> None:
    wait = retry_after_seconds(header, datetime(2026, 3, 4, 12, tzinfo=UTC))
    assert seconds <= wait < seconds + 1


def test_two_callers_with_the_same_retry_after_do_not_come_back_at_one_moment() -> None:
    now = datetime(2026, 3, 4, 12, tzinfo=UTC)
    assert len({retry_after_seconds("5", now) for _ in range(5)}) == 5


@pytest.mark.parametrize(
    "header", [None, "", "soon", "-5", "1.5", "٣", "Wed, 99 Mar 2026 12:00:00"]
)
def test_a_retry_after_that_cannot_be_read_counts_as_none(header: str | None) -> None:
    assert 45 <= retry_after_seconds(header, datetime(2026, 3, 4, tzinfo=UTC)) <= 60
