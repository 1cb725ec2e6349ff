"""How a run's materializations are logged while it is under way."""

from collections.abc import Sequence
from datetime import date, timedelta

import pytest

from kpi_pipeline.db.metrics import DayNumbers
from kpi_pipeline.orchestration.assets.progress import ProgressLog
from kpi_pipeline.sync.run import ClientOutcome


class Logged:
    """The names of the clients in each batch, on a clock that stands still until it is set."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.now = 0.0

    def log(self, outcomes: Sequence[ClientOutcome]) -> None:
        self.batches.append([it.workspace for it in outcomes])

    def clock(self) -> float:
        return self.now


def outcome(workspace: str, days: int, numbers: DayNumbers) -> ClientOutcome:
    dates = [date(2025, 1, 1) + timedelta(days=day) for day in range(days)]
    return ClientOutcome(workspace, numbers=dict.fromkeys(dates, numbers))


@pytest.fixture
def numbers() -> DayNumbers:
    return DayNumbers.__new__(DayNumbers)


def test_a_clients_year_is_logged_as_soon_as_it_is_filled(numbers: DayNumbers) -> None:
    logged = Logged()
    with ProgressLog(logged.log, logged.clock) as progress:
        for name in ("acorn", "zebra"):
            progress.add(outcome(name, 365, numbers))
            assert logged.batches[-1] == [name]
    assert logged.batches == [["acorn"], ["zebra"]]


def test_single_days_of_many_clients_are_logged_together_or_after_some_seconds(
    numbers: DayNumbers,
) -> None:
    logged = Logged()
    with ProgressLog(logged.log, logged.clock) as progress:
        for number in range(10):
            progress.add(outcome(f"client-{number}", 1, numbers))
        assert logged.batches == []
        logged.now = 5.0
        progress.add(outcome("late", 1, numbers))
        assert [len(batch) for batch in logged.batches] == [11]
        progress.add(outcome("last", 1, numbers))
    assert logged.batches[1:] == [["last"]]


def test_what_is_filled_when_a_run_is_cancelled_is_logged(numbers: DayNumbers) -> None:
    logged = Logged()

    def cancelled() -> None:
        with ProgressLog(logged.log, logged.clock) as progress:
            progress.add(outcome("acorn", 30, numbers))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cancelled()
    assert logged.batches == [["acorn"]]
