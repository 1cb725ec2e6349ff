"""Who is notified of what, and when; the clock is passed in."""

from datetime import datetime, timedelta

from kpi_pipeline.alerts.problem import Line, merge_by_cause
from kpi_pipeline.alerts.rules import NoticeKind
from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline_tests.alerts.rounds import Rounds, old_numbers
from kpi_pipeline_tests.alerts.support import START, problem


def test_a_problem_is_notified_once_with_reminders_every_twelve_hours_and_when_resolved() -> None:
    office, it = Rounds(), problem()
    notices = {hour: office.gets(hour, it) for hour in range(30)} | {30: office.gets(30)}
    assert {hour: sent for hour, sent in notices.items() if sent} == {
        0: [(NoticeKind.NEW, "freshness")],
        12: [(NoticeKind.REMINDER, "freshness")],
        24: [(NoticeKind.REMINDER, "freshness")],
        30: [(NoticeKind.RESOLVED, "freshness")],
    }
    assert office.gets(31) == []
    assert office.gets(54) == []
    assert office.states == {}, "after a day, a return is no flapping"


def test_a_problem_that_was_never_notified_is_not_reported_as_resolved() -> None:
    office = Rounds()
    office.evaluate(0, problem(), down=("chat",))
    assert office.gets(1) == []
    assert office.states == {}


def test_a_problem_that_is_resolved_within_its_grace_is_never_notified() -> None:
    office, it = Rounds(), problem("sync", "acme", grace=timedelta(minutes=5))
    assert office.gets(0, it) == []
    assert office.gets(0.05, it) == []
    assert office.gets(0.06) == []
    assert office.gets(1, it) == [], "it is a new problem, with five minutes of its own"
    assert office.gets(1.1, it) == [(NoticeKind.NEW, "sync")]


def test_a_receiver_that_was_unreachable_gets_the_current_state_once() -> None:
    office, it = Rounds("chat", "mail"), problem()
    assert office.evaluate(0, it, down=("mail",)) == {"chat": [(NoticeKind.NEW, "freshness")]}
    for minutes in range(1, 10):
        assert office.evaluate(minutes / 60, it, down=("mail",)) == {"chat": []}
    assert office.evaluate(0.2, it) == {"chat": [], "mail": [(NoticeKind.NEW, "freshness")]}
    assert office.evaluate(0.3, it) == {"chat": [], "mail": []}
    assert office.evaluate(5, down=("mail",)) == {"chat": [(NoticeKind.RESOLVED, "freshness")]}
    assert office.evaluate(9) == {"chat": [], "mail": [(NoticeKind.RESOLVED, "freshness")]}
    office.evaluate(33)
    assert office.states == {}


def test_a_new_receiver_gets_the_current_problems_and_a_removed_one_blocks_nothing() -> None:
    office, it = Rounds("chat"), problem()
    office.evaluate(0, it)
    office.receivers = ("mail",)
    assert office.evaluate(1, it) == {"mail": [(NoticeKind.NEW, "freshness")]}
    assert office.evaluate(2) == {"mail": [(NoticeKind.RESOLVED, "freshness")]}
    assert office.evaluate(26) == {"mail": []}
    assert office.states == {}


def test_stale_numbers_are_not_notified_beside_the_failing_sync_that_causes_them() -> None:
    office = Rounds()
    sync, stale = problem("sync", "acme", "birch"), old_numbers("acme")
    assert office.gets(0, sync) == [(NoticeKind.NEW, "sync")]
    assert office.gets(3, sync, stale) == []
    assert office.gets(3.9, sync, stale) == []
    # The sync works again; the next check run will see the new numbers.
    assert office.gets(4, stale) == [(NoticeKind.RESOLVED, "sync")]
    assert office.gets(4.25) == []


def test_stale_numbers_of_other_clients_or_that_outlast_the_cause_are_notified() -> None:
    office = Rounds()
    sync, stale = problem("sync", "acme"), old_numbers("acme")
    assert office.gets(0, sync) == [(NoticeKind.NEW, "sync")]
    both = old_numbers("acme", "birch")
    assert office.gets(1, sync, both) == [(NoticeKind.NEW, "freshness")]

    other = Rounds()
    other.evaluate(0, sync, stale)
    other.evaluate(0.9, sync, stale)
    assert other.gets(1, stale) == [(NoticeKind.RESOLVED, "sync")]
    assert other.gets(1.5, stale) == [(NoticeKind.NEW, "freshness")]


def test_problems_of_one_cause_are_merged_under_the_most_severe() -> None:
    warned = problem(
        "outage", "acme", name="complete", title="n of m", severity=Severity.WARN, since=START
    )
    failed = problem("outage", "birch", name="freshness", since=START + timedelta(hours=1))
    (one,) = merge_by_cause([warned, failed])
    assert (one.title, one.severity, one.since) == (failed.title, Severity.ERROR, START)
    assert one.clients == ("acme", "birch")
    assert one.names == ("freshness", "complete")
    assert one.lines == (Line("n of m", ("acme",)),)
    assert Rounds().gets(0, warned, failed) == [(NoticeKind.NEW, "outage")]


def test_a_merged_problem_keeps_the_oldest_since_of_all_that_were_merged_into_it() -> None:
    office = Rounds()
    old = problem("sync", "acme", name="freshness", since=START - timedelta(hours=3))
    young = problem("sync", "birch", since=START)

    def since() -> datetime:
        return office.states["sync"].since

    office.evaluate(0, young)
    assert since() == START
    office.evaluate(1, young, old)
    assert since() == old.since
    office.evaluate(2, young)
    assert since() == old.since, "the younger part of it goes on"
    office.evaluate(3)
    office.evaluate(5, young)
    assert since() == START, "after it was resolved it is a new problem"


def test_the_most_severe_new_problem_comes_first_and_resolved_ones_last() -> None:
    office = Rounds()
    office.evaluate(0, problem("old"))
    warned = problem("plausible", severity=Severity.WARN)
    assert office.gets(2, warned, problem("complete")) == [
        (NoticeKind.NEW, "complete"),
        (NoticeKind.NEW, "plausible"),
        (NoticeKind.RESOLVED, "old"),
    ]
