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


class Office:
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
        current = merge_by_cause(without_muted(problems, until, now))
        states, gone = update_states(
            current,
            self.states,
            hidden={it.cause for it in problems} - {it.cause for it in current},
            muted={name for name, it in until.items() if it > now},
            receivers=self.receivers,
            now=now,
        )
        sent: dict[str, Notices] = {}
        for receiver in self.receivers:
            due = due_notices(states, current, receiver, remind_after=REMIND_AFTER, now=now)
            if receiver not in down:
                sent[receiver] = [(it.kind, it.state.cause) for it in due]
                states |= {it.state.cause: after_notice(it, receiver, now) for it in due}
        kept = {cause: it for cause, it in self.states.items() if cause not in gone}
        self.states = {**kept, **states}
        return sent

    def gets(self, hours: float, *problems: Problem, **more: object) -> Notices:
        return self.evaluate(hours, *problems, **more)["chat"]  # type: ignore[arg-type]


def test_a_problem_is_notified_once_with_reminders_every_twelve_hours_and_when_resolved() -> None:
    office, it = Office(), problem()
    notices = {hour: office.gets(hour, it) for hour in range(30)} | {30: office.gets(30)}
    assert {hour: sent for hour, sent in notices.items() if sent} == {
        0: [(NoticeKind.NEW, "freshness")],
        12: [(NoticeKind.REMINDER, "freshness")],
        24: [(NoticeKind.REMINDER, "freshness")],
        30: [(NoticeKind.RESOLVED, "freshness")],
    }
    assert office.gets(31) == []
    assert office.states == {}, "a settled problem is forgotten"


def test_a_problem_that_was_never_notified_is_not_reported_as_resolved() -> None:
    office = Office()
    office.evaluate(0, problem(), down=("chat",))
    assert office.gets(1) == []
    assert office.states == {}


def test_a_problem_that_is_resolved_within_its_grace_is_never_notified() -> None:
    office, it = Office(), problem("sync", "acme", grace=timedelta(minutes=5))
    assert office.gets(0, it) == []
    assert office.gets(0.05, it) == []
    assert office.gets(0.06) == []
    assert office.gets(1, it) == [], "it is a new problem, with five minutes of its own"
    assert office.gets(1.1, it) == [(NoticeKind.NEW, "sync")]


def test_a_problem_that_comes_and_goes_is_notified_at_most_twice_an_hour() -> None:
    office, it = Office(), problem()
    sent = [office.gets(n / 4, *([it] if n % 2 == 0 else [])) for n in range(4 * 6)]
    assert len([each for each in sent if each]) <= 2 * 6
    assert sent[0] == [(NoticeKind.NEW, "freshness")]
    assert sent[1] == [(NoticeKind.RESOLVED, "freshness")]
    assert sent[2:5] == [[], [], []]


def test_a_receiver_that_was_unreachable_gets_the_current_state_once() -> None:
    office, it = Office("chat", "mail"), problem()
    assert office.evaluate(0, it, down=("mail",)) == {"chat": [(NoticeKind.NEW, "freshness")]}
    for minutes in range(1, 10):
        assert office.evaluate(minutes / 60, it, down=("mail",)) == {"chat": []}
    assert office.evaluate(0.2, it) == {"chat": [], "mail": [(NoticeKind.NEW, "freshness")]}
    assert office.evaluate(0.3, it) == {"chat": [], "mail": []}
    assert office.evaluate(5, down=("mail",)) == {"chat": [(NoticeKind.RESOLVED, "freshness")]}
    assert office.evaluate(9) == {"chat": [], "mail": [(NoticeKind.RESOLVED, "freshness")]}
    office.evaluate(10)
    assert office.states == {}


def test_a_new_receiver_gets_the_current_problems_and_a_removed_one_blocks_nothing() -> None:
    office, it = Office("chat"), problem()
    office.evaluate(0, it)
    office.receivers = ("mail",)
    assert office.evaluate(1, it) == {"mail": [(NoticeKind.NEW, "freshness")]}
    assert office.evaluate(2) == {"mail": [(NoticeKind.RESOLVED, "freshness")]}
    assert office.evaluate(3.1) == {"mail": []}
    assert office.states == {}


def test_more_clients_or_a_higher_severity_are_notified_after_an_hour_and_fewer_are_not() -> None:
    office = Office()
    warned = problem("freshness", "acme", "birch", severity=Severity.WARN)
    assert office.gets(0, warned) == [(NoticeKind.NEW, "freshness")]
    assert office.gets(0.5, problem("freshness", "acme", "birch", "cedar")) == []
    more = problem("freshness", "acme", "cedar", severity=Severity.WARN)
    assert office.gets(1.0, more) == [(NoticeKind.WORSE, "freshness")]
    assert office.gets(2.5, warned) == [], "the receiver knows of birch, which is back"
    assert office.gets(3, problem("freshness", "acme")) == [(NoticeKind.WORSE, "freshness")]
    assert office.gets(5, problem("freshness", "acme")) == []


def old_numbers(*clients: str, **changed: Any) -> Problem:
    """Stale numbers because of a failing sync, until a check run sees the next sync."""
    minutes = timedelta(minutes=20)
    return problem("freshness", *clients, follows="sync", hold=minutes, **changed)


def test_stale_numbers_are_not_notified_beside_the_failing_sync_that_causes_them() -> None:
    office = Office()
    sync, stale = problem("sync", "acme", "birch"), old_numbers("acme")
    assert office.gets(0, sync) == [(NoticeKind.NEW, "sync")]
    assert office.gets(3, sync, stale) == []
    assert office.gets(3.9, sync, stale) == []
    # The sync works again; the next check run will see the new numbers.
    assert office.gets(4, stale) == [(NoticeKind.RESOLVED, "sync")]
    assert office.gets(4.25) == []


def test_stale_numbers_of_other_clients_or_that_outlast_the_cause_are_notified() -> None:
    office = Office()
    sync, stale = problem("sync", "acme"), old_numbers("acme")
    assert office.gets(0, sync) == [(NoticeKind.NEW, "sync")]
    both = old_numbers("acme", "birch")
    assert office.gets(1, sync, both) == [(NoticeKind.NEW, "freshness")]

    other = Office()
    other.evaluate(0, sync, stale)
    other.evaluate(0.9, sync, stale)
    assert other.gets(1, stale) == [(NoticeKind.RESOLVED, "sync")]
    assert other.gets(1.5, stale) == [(NoticeKind.NEW, "freshness")]


def test_a_muted_client_is_left_out_and_with_all_muted_nothing_is_notified() -> None:
    lines = (Line("4 h old", ("acme",)), Line("5 h old", ("birch", "acme")), Line("All late"))
    it = problem("freshness", "acme", "birch", lines=lines)
    until = {"acme": START + timedelta(hours=1)}
    (current,) = without_muted([it], until, START)
    assert current.clients == ("birch",)
    assert current.lines == (Line("5 h old", ("birch",)), Line("All late"))

    office = Office()
    assert office.gets(0, it, mutes={"acme": 9, "birch": 9}) == []
    assert office.gets(9.1, it) == [(NoticeKind.NEW, "freshness")], "the mutes have expired"


def test_a_client_that_is_muted_in_one_check_is_left_out_of_that_check_alone() -> None:
    lines = (Line("5 h old", ("birch", "acme")),)
    stale = problem("freshness", "acme", "birch", lines=lines)
    odd, alone = problem("plausible", "acme", "birch"), problem("complete", "acme")
    names = ("acme:freshness", "acme:complete", "x:plausible")
    until = dict.fromkeys(names, START + timedelta(hours=1))
    current = without_muted([stale, odd, alone], until, START)
    assert [(it.name, it.clients) for it in current] == [
        ("freshness", ("birch",)),
        ("plausible", ("acme", "birch")),
    ]
    assert current[0].lines == (Line("5 h old", ("birch",)),)
    assert len(without_muted([alone], until, START + timedelta(hours=2))) == 1, "it has expired"


def test_the_only_client_of_a_check_that_is_muted_in_it_causes_no_notice_and_no_end() -> None:
    office, it = Office(), problem("plausible", "acme")
    assert office.gets(0, it) == [(NoticeKind.NEW, "plausible")]
    mutes = {"acme:plausible": 48.0}
    assert office.gets(13, it, mutes=mutes) == []
    assert office.gets(27, mutes=mutes) == []
    assert office.states == {}


def test_muting_the_clients_with_lines_hides_no_other_client() -> None:
    it = problem("freshness", "acme", "birch", lines=(Line("4 h old", ("acme",)),), more=1)
    (current,) = without_muted([it], {"acme": START + timedelta(hours=1)}, START)
    assert (current.clients, current.lines, current.more) == (("birch",), (), 1)


def test_a_muted_check_sends_neither_a_first_notice_nor_reminders_nor_its_end() -> None:
    office, it = Office(), problem()
    assert office.gets(0, it) == [(NoticeKind.NEW, "freshness")]
    for hour in (1, 13, 25):
        assert office.gets(hour, it, mutes={"freshness": 48}) == []
    assert office.gets(26, it) == [(NoticeKind.REMINDER, "freshness")], (
        "the receiver knew of it before"
    )
    assert office.gets(27, mutes={"freshness": 48}) == []
    assert office.gets(49) == []
    assert office.states == {}


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
    assert Office().gets(0, warned, failed) == [(NoticeKind.NEW, "outage")]


def test_a_merged_problem_keeps_the_oldest_since_of_all_that_were_merged_into_it() -> None:
    office = Office()
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
    office = Office()
    office.evaluate(0, problem("old"))
    warned = problem("plausible", severity=Severity.WARN)
    assert office.gets(2, warned, problem("complete")) == [
        (NoticeKind.NEW, "complete"),
        (NoticeKind.NEW, "plausible"),
        (NoticeKind.RESOLVED, "old"),
    ]
