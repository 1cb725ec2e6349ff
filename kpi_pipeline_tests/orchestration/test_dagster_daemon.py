"""How often the daemon of `kpi up` looks at backfills."""

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from dagster._daemon import controller
from dagster._daemon.backfill import execute_backfill_iteration_loop

from kpi_pipeline.orchestration.runtime.daemon import look_often
from kpi_pipeline_tests.orchestration.installation import temporary_instance


class Rests:
    """An event that never comes: notes how long it was waited for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def wait(self, seconds: float) -> None:
        self.seconds.append(seconds)


def looks(rests: Rests) -> Iterator[Any]:
    """Dagster's own loop, without a backfill to look at."""
    with temporary_instance() as instance:
        context: Any = SimpleNamespace(instance=instance)
        ending: Any = rests
        yield from execute_backfill_iteration_loop(context, logging.getLogger("daemon"), ending)


@pytest.fixture(autouse=True)
def _as_dagster_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "DEFAULT_DAEMON_INTERVAL_SECONDS", 30)


def test_backfills_are_looked_at_every_five_seconds_and_not_twice_a_minute() -> None:
    look_often()
    rests = Rests()
    for _ in looks(rests):
        if len(rests.seconds) == 2:
            break

    assert all(0 < seconds <= 5 for seconds in rests.seconds)
