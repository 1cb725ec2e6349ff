"""Who is notified of what, and when; the clock is passed in."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from kpi_pipeline.alerts.problem import Line, Problem, merge_by_cause, without_muted
from kpi_pipeline.alerts.rules import NoticeKind, after_notice, due_notices, update_states
from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.db.alerts import AlertState
from kpi_pipeline_tests.alerts.support import START, problem

REMIND_AFTER = timedelta(hours=12)
Notices = list[tuple[NoticeKind, str]]


class Desk:
    """Receivers that accept every message, and what each evaluation sends them."""

    def __init__(self, *receivers: str) -> None:
        self.receivers = receivers or ("chat",)
        self.states: Mapping[str, AlertState] = {}

    def evaluate(
        self,
        hours: float,
        *problems: Problem,
        down: tuple[str, ...] = (),
        mutes: Mapping[str, float] | None = None,
    ) -> dict[str, Notices]:
        now = START + timedelta(hours=hours)
        until = {name: START + timedelta(hours=it) for name, it in (mutes or {}).items()}
        left = merge_by_cause(without_muted(problems, until, now))
        states, gone = update_states(
            left,
            self.states,
            hidden={it.cause for it in problems} - {it.cause for it in left},
            muted={name for name, it in until.items() if it > now},
            receivers=self.receivers,
            now=now,
        )
        said: dict[str, Notices] = {}
        for receiver in self.receivers:
            due = due_notices(states, left, receiver, remind_after=REMIND_AFTER, now=now)
            if receiver not in down:
                said[receiver] = [(it.kind, it.state.cause) for it in due]
                states |= {it.state.cause: after_notice(it, receiver, now) for it in due}
        kept = {cause: it for cause, it in self.states.items() if cause not in gone}
        self.states = {**kept, **states}
        return said

    def gets(self, hours: float, *problems: Problem, **more: object) -> Notices:
        return self.evaluate(hours, *problems, **more)["chat"]  # type: ignore[arg-type]


def test_a_problem_is_notified_once_with_reminders_every_twelve_hours_and_when_resolved() -> None:
    desk, it = Desk(), problem()
    left = {hour: desk.gets(hour, it) for hour in range(30)} | {30: desk.gets(30)}
    assert {hour: said for hour, said in left.items() if said} == {
        0: [(NoticeKind.NEW, "freshness")],
        12: [(NoticeKind.REMINDER, "freshness")],
        24: [(NoticeKind.REMINDER, "freshness")],
        30: [(NoticeKind.RESOLVED, "freshness")],
    }
    assert desk.gets(31) == []
    assert desk.states == {}, "a settled problem is forgotten"


def test_a_problem_that_was_never_notified_is_not_reported_as_resolved() -> None:
    desk = Desk()
    desk.evaluate(0, problem(), down=("chat",))
    assert desk.gets(1) == []
    assert desk.states == {}


def test_a_problem_that_is_resolved_within_its_grace_is_never_notified() -> None:
    desk, it = Desk(), problem("sync", "acme", grace=timedelta(minutes=5))
    assert desk.gets(0, it) == []
    assert desk.gets(0.05, it) == []
    assert desk.gets(0.06) == []
    assert desk.gets(1, it) == [], "it is a new problem, with five minutes of its own"
    assert desk.gets(1.1, it) == [(NoticeKind.NEW, "sync")]


def test_a_problem_that_comes_and_goes_is_notified_at_most_twice_an_hour() -> None:
    desk, it = Desk(), problem()
    said = [desk.gets(look / 4, *([it] if look % 2 == 0 else [])) for look in range(4 * 6)]
    assert len([each for each in said if each]) <= 2 * 6
    assert said[0] == [(NoticeKind.NEW, "freshness")]
    assert said[1] == [(NoticeKind.RESOLVED, "freshness")]
    assert said[2:5] == [[], [], []]


def test_a_receiver_that_was_unreachable_gets_the_current_state_once() -> None:
    desk, it = Desk("chat", "mail"), problem()
    assert desk.evaluate(0, it, down=("mail",)) == {"chat": [(NoticeKind.NEW, "freshness")]}
    for minutes in range(1, 10):
        assert desk.evaluate(minutes / 60, it, down=("mail",)) == {"chat": []}
    assert desk.evaluate(0.2, it) == {"chat": [], "mail": [(NoticeKind.NEW, "freshness")]}
    assert desk.evaluate(0.3, it) == {"chat": [], "mail": []}
    assert desk.evaluate(5, down=("mail",)) == {"chat": [(NoticeKind.RESOLVED, "freshness")]}
    assert desk.evaluate(9) == {"chat": [], "mail": [(NoticeKind.RESOLVED, "freshness")]}
    desk.evaluate(10)
    assert desk.states == {}


def test_a_new_receiver_gets_the_current_problems_and_a_removed_one_blocks_nothing() -> None:
    desk, it = Desk("chat"), problem()
    desk.evaluate(0, it)
    desk.receivers = ("mail",)
    assert desk.evaluate(1, it) == {"mail": [(NoticeKind.NEW, "freshness")]}
    assert desk.evaluate(2) == {"mail": [(NoticeKind.RESOLVED, "freshness")]}
    assert desk.evaluate(3.1) == {"mail": []}
    assert desk.states == {}


def test_more_clients_or_a_higher_severity_are_notified_after_an_hour_and_fewer_are_not() -> None:
    desk = Desk()
    warned = problem("freshness", "acme", "birch", severity=Severity.WARN)
    assert desk.gets(0, warned) == [(NoticeKind.NEW, "freshness")]
    assert desk.gets(0.5, problem("freshness", "acme", "birch", "cedar")) == []
    more = problem("freshness", "acme", "cedar", severity=Severity.WARN)
    assert desk.gets(1.0, more) == [(NoticeKind.WORSE, "freshness")]
    assert desk.gets(2.5, warned) == [], "the receiver knows of birch, which is back"
    assert desk.gets(3, problem("freshness", "acme")) == [(NoticeKind.WORSE, "freshness")]
    assert desk.gets(5, problem("freshness", "acme")) == []


def old_numbers(*clients: str, **changed: Any) -> Problem:
    """Stale numbers because of a failing sync, until a check run sees the next sync."""
    minutes = timedelta(minutes=20)
    return problem("freshness", *clients, follows="sync", hold=minutes, **changed)


def test_stale_numbers_are_not_notified_beside_the_failing_sync_that_causes_them() -> None:
    desk = Desk()
    sync, stale = problem("sync", "acme", "birch"), old_numbers("acme")
    assert desk.gets(0, sync) == [(NoticeKind.NEW, "sync")]
    assert desk.gets(3, sync, stale) == []
    assert desk.gets(3.9, sync, stale) == []
    # The sync works again; the next check run will see the new numbers.
    assert desk.gets(4, stale) == [(NoticeKind.RESOLVED, "sync")]
    assert desk.gets(4.25) == []


def test_stale_numbers_of_other_clients_or_that_outlast_the_cause_are_notified() -> None:
    desk = Desk()
    sync, stale = problem("sync", "acme"), old_numbers("acme")
    assert desk.gets(0, sync) == [(NoticeKind.NEW, "sync")]
    both = old_numbers("acme", "birch")
    assert desk.gets(1, sync, both) == [(NoticeKind.NEW, "freshness")]

    other = Desk()
    other.evaluate(0, sync, stale)
    other.evaluate(0.9, sync, stale)
    assert other.gets(1, stale) == [(NoticeKind.RESOLVED, "sync")]
    assert other.gets(1.5, stale) == [(NoticeKind.NEW, "freshness")]


def test_a_muted_client_is_left_out_and_with_all_muted_nothing_is_notified() -> None:
    lines = (Line("4 h old", ("acme",)), Line("5 h old", ("birch", "acme")), Line("All late"))
    it = problem("freshness", "acme", "birch", lines=lines)
    until = {"acme": START + timedelta(hours=1)}
    (left,) = without_muted([it], until, START)
    assert left.clients == ("birch",)
    assert left.lines == (Line("5 h old", ("birch",)), Line("All late"))

    desk = Desk()
    assert desk.gets(0, it, mutes={"acme": 9, "birch": 9}) == []
    assert desk.gets(9.1, it) == [(NoticeKind.NEW, "freshness")], "the mutes have expired"


def test_muting_the_clients_with_lines_hides_no_other_client() -> None:
    it = problem("freshness", "acme", "birch", lines=(Line("4 h old", ("acme",)),), more=1)
    (left,) = without_muted([it], {"acme": START + timedelta(hours=1)}, START)
    assert (left.clients, left.lines, left.more) == (("birch",), (), 1)


def test_a_muted_check_sends_neither_a_first_notice_nor_reminders_nor_its_end() -> None:
    desk, it = Desk(), problem()
    assert desk.gets(0, it) == [(NoticeKind.NEW, "freshness")]
    for hour in (1, 13, 25):
        assert desk.gets(hour, it, mutes={"freshness": 48}) == []
    assert desk.gets(26, it) == [(NoticeKind.REMINDER, "freshness")], (
        "the receiver knew of it before"
    )
    assert desk.gets(27, mutes={"freshness": 48}) == []
    assert desk.gets(49) == []
    assert desk.states == {}


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
    assert Desk().gets(0, warned, failed) == [(NoticeKind.NEW, "outage")]


def test_a_merged_problem_keeps_the_oldest_since_of_all_that_were_merged_into_it() -> None:
    desk = Desk()
    old = problem("sync", "acme", name="freshness", since=START - timedelta(hours=3))
    young = problem("sync", "birch", since=START)

    def since() -> datetime:
        return desk.states["sync"].since

    desk.evaluate(0, young)
    assert since() == START
    desk.evaluate(1, young, old)
    assert since() == old.since
    desk.evaluate(2, young)
    assert since() == old.since, "the younger part of it goes on"
    desk.evaluate(3)
    desk.evaluate(5, young)
    assert since() == START, "after it was resolved it is a new problem"


def test_the_most_severe_new_problem_comes_first_and_resolved_ones_last() -> None:
    desk = Desk()
    desk.evaluate(0, problem("old"))
    warned = problem("plausible", severity=Severity.WARN)
    assert desk.gets(2, warned, problem("complete")) == [
        (NoticeKind.NEW, "complete"),
        (NoticeKind.NEW, "plausible"),
        (NoticeKind.RESOLVED, "old"),
    ]
