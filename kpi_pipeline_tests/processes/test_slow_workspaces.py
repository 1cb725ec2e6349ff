"""A workspace that answers late and one that stalls delay no other workspace."""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import pytest

from kpi_pipeline.sync.run import ClientOutcome, run_sync
from kpi_pipeline.sync.scope import PartitionBlock
from kpi_pipeline_tests.agency import SERIES, Agency, differences, errors
from kpi_pipeline_tests.bison_sandbox.running import TODAY, Bison, Stage, bison_on, options
from kpi_pipeline_tests.conftest import NOW
from kpi_pipeline_tests.processes.workers import Call, calls_of

# Scaled down: a series of the largest workspaces can take 30 s.
SLOW_SECONDS = 7.0
TIMEOUT_SECONDS = 9.0
CALLS_PER_SECOND = 30
ROUNDS = 2


@pytest.fixture
def bison(stage: Stage) -> Iterator[Bison]:
    """A sandbox whose answers take some time, as they do live."""
    with bison_on(stage, options(latency=0.05)) as fresh:
        yield fresh


class Round:
    """One sync of all clients, and when each of them was done, in seconds after its start."""

    def __init__(self, agency: Agency, workspaces: Sequence[str], instant: datetime) -> None:
        self.agency = agency.moved_to(instant)
        self.agency.forget_calls()
        self.outcomes: dict[str, ClientOutcome] = {}
        self.done_at: dict[str, float] = {}
        self.started_at = time.monotonic()
        run_sync(
            self.agency.app,
            PartitionBlock(workspaces, [TODAY]),
            run_id=f"at {instant}",
            on_done=self._note,
        )

    def _note(self, outcome: ClientOutcome) -> None:
        self.outcomes[outcome.workspace] = outcome
        self.done_at[outcome.workspace] = time.monotonic() - self.started_at

    def seconds_for(self, workspaces: Sequence[str]) -> float:
        """How long it took until all of these were done."""
        return max(self.done_at[slug] for slug in workspaces)


@pytest.mark.alone
@pytest.mark.server
def test_a_slow_and_a_stalled_workspace_hold_up_none_of_the_other_24(
    agency: Agency, bison: Bison
) -> None:
    # The keys are verified once, so that all rounds are of the same calls.
    agency.synced([TODAY])
    agency = agency.with_settings(
        bison_calls_per_second=CALLS_PER_SECOND,
        bison_timeout_seconds=TIMEOUT_SECONDS,
        bison_attempts=1,
    )
    slow, stalled = agency.keyed[:2]
    others = [slug for slug in agency.workspaces if slug not in (slow, stalled)]
    # The two come first, and so take their places at once.
    workspaces = [slow, stalled, *others]
    instants = [NOW + timedelta(minutes=number) for number in range(1, 2 * ROUNDS + 1)]

    calm = [Round(agency, workspaces, instant) for instant in instants[:ROUNDS]]
    assert [errors(it.outcomes) for it in calm] == [{}] * ROUNDS
    longest = 1.1 * min(it.seconds_for(others) for it in calm) + 0.5
    bison.fault("slow", path=SERIES, workspace_id=agency.ids[slow], seconds=SLOW_SECONDS)
    bison.fault("stall", path=SERIES, workspace_id=agency.ids[stalled])

    def seconds_with_faults(instant: datetime) -> float:
        round_ = Round(agency, workspaces, instant)
        assert_the_two_hold_up_themselves_alone(round_, bison, slow, stalled)
        return round_.seconds_for(others)

    # Once is enough: what else the machine does can only make it longer.
    assert any(seconds_with_faults(instant) <= longest for instant in instants[ROUNDS:])


def assert_the_two_hold_up_themselves_alone(
    round_: Round, bison: Bison, slow: str, stalled: str
) -> None:
    """All others ask and are answered while the two are under way; each of the two ends rightly."""
    agency, order = round_.agency, list(round_.done_at)
    assert len(order) == 26
    assert order[-2:] == [slow, stalled]
    one, other = (series_call(agency, bison, slug) for slug in (slow, stalled))
    answered = [call for call in calls_of(bison, SERIES) if call.answered() < one.answered()]
    assert len(answered) == 24
    # Those that begin beside the two may call before them, and so may those that follow.
    beside = [call for call in answered if max(one.at, other.at) <= call.at]
    assert len(beside) >= 12
    assert errors(round_.outcomes).keys() == {stalled}
    assert f"time-out ({TIMEOUT_SECONDS:g} s)" in errors(round_.outcomes)[stalled]
    rows = {key: row for key, row in agency.rows().items() if key[0] == slow}
    assert differences(rows, agency.expected([TODAY], [slow])) == []
    now = agency.app.now()
    assert {slug for (slug, _), row in agency.rows().items() if row["as_of"] == now} == {
        slug for slug in order if slug != stalled
    }


def series_call(agency: Agency, bison: Bison, workspace: str) -> Call:
    [call] = [it for it in calls_of(bison, SERIES) if it.workspace_id == agency.ids[workspace]]
    return call
