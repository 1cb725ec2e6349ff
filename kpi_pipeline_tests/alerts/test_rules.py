"""Who is notified of what, and when; the clock is passed in."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from kpi_pipeline.alerts.problem import Line, Problem, merge_by_cause, without_muted
from kpi_pipeline.alerts.rules import (
    Notice,
    NoticeKind,
    after_notice,
    due_notices,
    update_states,
)
from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.db.alerts import AlertState, Mute
from kpi_pipeline_tests.alerts.support import START, problem

REMIND_AFTER = timedelta(hours=12)
Notices = list[tuple[NoticeKind, str]]


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def warn(cause: str, *clients: str, **changed: Any) -> Problem:
    return problem(cause, *clients, severity=Severity.WARN, **changed)


def muting(*names: str) -> dict[str, Mute]:
    return {name: Mute(name, at(1), START) for name in names}


def kinds(notices: Notices) -> list[NoticeKind]:
    return [kind for kind, _ in notices]


class Office:
    """Receivers that accept every message, and what each evaluation sends them."""

    def __init__(self, *receivers: str) -> None:
        self.receivers = receivers or ("chat",)
        self.states: Mapping[str, AlertState] = {}
        self.notices: list[Notice] = []

    def evaluate(
        self,
        hours: float,
        *problems: Problem,
        down: tuple[str, ...] = (),
        mutes: Mapping[str, float] | None = None,
        severity: Severity | None = None,
        muted_at: float = 0,
    ) -> dict[str, Notices]:
        """Evaluate so many hours after START; `mutes` are until when, made at `muted_at`."""
        now = START + timedelta(hours=hours)
        current = update_states(
            problems,
            self.states,
            mutes={
                name: Mute(name, START + timedelta(hours=until), at(muted_at), severity)
                for name, until in (mutes or {}).items()
                if until > hours
            },
            receivers=self.receivers,
            now=now,
        )
        self.states = current.states
        sent: dict[str, Notices] = {}
        for receiver in self.receivers:
            due = due_notices(current, receiver, remind_after=REMIND_AFTER, now=now)
            if receiver not in down:
                self.notices += due
                sent[receiver] = [(it.kind, it.state.cause) for it in due]
                after = {it.state.cause: after_notice(it, receiver, now) for it in due}
                current = replace(current, states={**current.states, **after})
        self.states = current.states
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
    assert office.gets(54) == []
    assert office.states == {}, "after a day, a return is no flapping"


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


def test_a_check_that_flaps_every_20_minutes_is_5_messages_a_day_that_say_how_often() -> None:
    office, it = Office(), problem()
    sent = {n / 6: office.gets(n / 6, *([it] if n % 2 == 0 else [])) for n in range(24 * 6)}
    # Its second end would have to last for an hour.
    assert {round(hour, 2): kinds(notices) for hour, notices in sent.items() if notices} == {
        0: [NoticeKind.NEW],
        0.17: [NoticeKind.RESOLVED],
        0.33: [NoticeKind.NEW],
        12.33: [NoticeKind.REMINDER],
    }
    assert [it.flaps for it in office.notices] == [0, 0, 2, 38]
    ends = {n / 6: office.gets(n / 6) for n in range(24 * 6, 24 * 6 + 12)}
    assert [hour for hour, notices in ends.items() if notices] == [pytest.approx(24 + 5 / 6)]
    assert kinds(ends[24 + 5 / 6]) == [NoticeKind.RESOLVED]


def test_a_slow_flap_keeps_to_six_messages_and_its_return_is_always_notified() -> None:
    office, it = Office(), problem()
    open_for, sent = False, []
    for quarter in range(5 * 24 * 4):
        is_wrong = quarter // 6 % 2 == 0  # 90 minutes each
        for kind in kinds(office.gets(quarter / 4, *([it] if is_wrong else []))):
            sent.append(quarter / 4)
            open_for = kind is not NoticeKind.RESOLVED
        assert open_for or not is_wrong, f"after {quarter / 4} h"
    assert max(len([it for it in sent if 0 <= it - since < 24]) for since in sent) <= 6


def test_an_escalation_is_notified_at_once_and_again_after_it_was_a_warning_in_between() -> None:
    office = Office()
    bad, mild = problem("plausible", "acme"), warn("plausible", "acme")
    assert kinds(office.gets(0, mild)) == [NoticeKind.NEW]
    assert kinds(office.gets(0.25, bad)) == [NoticeKind.WORSE]
    assert office.gets(0.5, mild) == []
    assert kinds(office.gets(0.75, bad)) == [NoticeKind.WORSE]
    assert office.notices[-1].flaps == 2
    # From now on it flaps: a third one is notified after an hour as a warning.
    assert [office.gets(1 + n / 4, *([bad] if n % 2 else [mild])) for n in range(8)] == [[]] * 8
    assert office.gets(3, mild) == []
    assert office.gets(4, mild) == []
    assert kinds(office.gets(4.25, bad)) == [NoticeKind.WORSE]


def test_a_receiver_that_was_unreachable_gets_the_current_state_once() -> None:
    office, it = Office("chat", "mail"), problem()
    assert office.evaluate(0, it, down=("mail",)) == {"chat": [(NoticeKind.NEW, "freshness")]}
    for minutes in range(1, 10):
        assert office.evaluate(minutes / 60, it, down=("mail",)) == {"chat": []}
    assert office.evaluate(0.2, it) == {"chat": [], "mail": [(NoticeKind.NEW, "freshness")]}
    assert office.evaluate(0.3, it) == {"chat": [], "mail": []}
    assert office.evaluate(5, down=("mail",)) == {"chat": [(NoticeKind.RESOLVED, "freshness")]}
    assert office.evaluate(9) == {"chat": [], "mail": [(NoticeKind.RESOLVED, "freshness")]}
    office.evaluate(29)
    assert office.states == {}


def test_a_new_receiver_gets_the_current_problems_and_a_removed_one_blocks_nothing() -> None:
    office, it = Office("chat"), problem()
    office.evaluate(0, it)
    office.receivers = ("mail",)
    assert office.evaluate(1, it) == {"mail": [(NoticeKind.NEW, "freshness")]}
    assert office.evaluate(2) == {"mail": [(NoticeKind.RESOLVED, "freshness")]}
    assert office.evaluate(26) == {"mail": []}
    assert office.states == {}


def test_clients_that_join_a_warning_are_notified_after_an_hour_and_fewer_are_not() -> None:
    office = Office()
    assert office.gets(0, warn("freshness", "acme", "birch")) == [(NoticeKind.NEW, "freshness")]
    more = warn("freshness", "acme", "cedar")
    assert office.gets(0.5, more) == []
    assert office.gets(1.0, more) == [(NoticeKind.WORSE, "freshness")]
    assert office.notices[-1].joined == ("cedar",)
    for hour in (1.25, 2.5):
        assert office.gets(hour, warn("freshness", "acme", "birch")) == [], "birch is known"
    assert office.gets(5, warn("freshness", "acme")) == []
    # Birch is well for two hours.
    assert office.gets(6, warn("freshness", "acme")) == []
    assert office.gets(7, warn("freshness", "acme", "birch")) == [(NoticeKind.WORSE, "freshness")]
    assert office.notices[-1].joined == ("birch",)


def test_clients_that_join_an_error_are_named_within_minutes_and_then_less_often() -> None:
    office, clients = Office(), [f"client-{n:02}" for n in range(40)]
    # One more every five minutes.
    for n in range(40):
        office.gets(n / 12, problem("sync", *clients[: n + 1]))
    first, *later = office.notices
    assert (first.kind, first.joined) == (NoticeKind.NEW, ())
    assert [it.kind for it in later] == [NoticeKind.WORSE] * 5
    assert [len(it.joined) for it in later] == [2, 4, 8, 12, 12], "10, 20, 40, 60, 60 minutes"
    named = [name for it in later for name in it.joined]
    assert named == clients[1:39], "each once"


def failing(kinds: Mapping[str, tuple[str, ...]], **changed: Any) -> Problem:
    lines = tuple(Line(f"answered {kind}", clients, kind) for kind, clients in kinds.items())
    clients = sorted({it for names in kinds.values() for it in names})
    return problem("sync", *clients, lines=lines, **changed)


def test_an_error_of_another_kind_is_notified_at_once_and_not_folded_into_an_open_one() -> None:
    office = Office()
    down = ("acme", "birch", "cedar")
    office.gets(0, failing({"timeout": down}))
    office.gets(0.05, failing({"timeout": down[:2], "401": ("cedar",)}))
    assert [it.kind for it in office.notices] == [NoticeKind.NEW, NoticeKind.WORSE]
    assert office.notices[-1].joined == ("cedar",)
    assert office.gets(8, failing({"401": ("cedar",)})) == [], "known"
    assert kinds(office.gets(9, failing({"401": ("acme", "cedar")}))) == [NoticeKind.WORSE]
    assert office.notices[-1].joined == ("acme",)


def test_a_check_with_too_many_rows_to_know_their_kinds_is_not_worse_for_that() -> None:
    office, few, many = Office(), failing({"401": ("acme",)}), problem("sync", "acme", "birch")
    office.gets(0, few)
    office.gets(1, many)
    office.gets(3, failing({"401": ("acme",), "unread": ("birch",)}))
    assert [it.joined for it in office.notices] == [(), ("birch",)]


def test_an_error_that_a_retry_mends_within_its_grace_is_not_notified_in_an_open_problem() -> None:
    office, grace = Office(), timedelta(minutes=5)
    for n in range(120):
        blip = ("birch",) if n % 30 < 5 else ()
        kinds_now = {"401": ("acme",), **({"timeout": blip} if blip else {})}
        office.gets(n / 60, failing(kinds_now, grace=grace))
    assert [(it.kind, it.problem.clients) for it in office.notices if it.problem] == [
        (NoticeKind.NEW, ("acme",))
    ]


def test_kinds_without_end_are_not_messages_without_end() -> None:
    office = Office()
    for n in range(24 * 60):
        office.gets(n / 60, failing({f"kind {n}": ("acme",)}))
    assert len(office.notices) <= 6 + 24


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
    (current,) = without_muted([it], muting("acme"))
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
    current = without_muted([stale, odd, alone], muting(*names))
    assert [(it.name, it.clients) for it in current] == [
        ("freshness", ("birch",)),
        ("plausible", ("acme", "birch")),
    ]
    assert current[0].lines == (Line("5 h old", ("birch",)),)


def test_the_only_client_of_a_check_that_is_muted_in_it_causes_no_notice_and_no_end() -> None:
    office, it = Office(), problem("plausible", "acme")
    assert office.gets(0, it) == [(NoticeKind.NEW, "plausible")]
    mutes = {"acme:plausible": 48.0}
    assert office.gets(13, it, mutes=mutes, muted_at=12) == []
    assert office.gets(27, mutes=mutes, muted_at=12) == []
    assert office.gets(47, mutes=mutes, muted_at=12) == []
    assert office.gets(48) == [(NoticeKind.RESOLVED, "plausible")], "the end, after the mute"
    assert office.gets(72) == []
    assert office.states == {}


def test_muting_the_clients_with_lines_hides_no_other_client() -> None:
    it = problem("freshness", "acme", "birch", lines=(Line("4 h old", ("acme",)),), more=1)
    (current,) = without_muted([it], muting("acme"))
    assert (current.clients, current.lines, current.more) == (("birch",), (), 1)


def test_a_muted_check_sends_neither_a_first_notice_nor_reminders_and_its_end_after_the_mute() -> (
    None
):
    office, it = Office(), problem()
    assert office.gets(0, it) == [(NoticeKind.NEW, "freshness")]
    for hour in (1, 13, 25):
        assert office.gets(hour, it, mutes={"freshness": 48}, muted_at=1) == []
    assert office.gets(26, it) == [(NoticeKind.REMINDER, "freshness")], (
        "the receiver knew of it before"
    )
    assert office.gets(27, mutes={"freshness": 48}, muted_at=27) == []
    assert office.gets(49) == [(NoticeKind.RESOLVED, "freshness")]
    office.gets(52)
    assert office.states == {}

    muted = Office()
    muted.gets(0, it, mutes={"freshness": 48})
    muted.gets(1, mutes={"freshness": 48})
    assert (muted.notices, muted.states) == ([], {}), "nobody was notified of it"


@pytest.mark.parametrize("name", ["plausible", "acme", "acme:plausible"])
def test_an_error_breaks_through_a_mute_that_was_made_of_a_warning(name: str) -> None:
    office = Office()
    muted: dict[str, Any] = {"mutes": {name: 48.0}, "severity": Severity.WARN, "muted_at": 1}
    mild, bad = warn("plausible", "acme"), problem("plausible", "acme")
    assert kinds(office.gets(0, mild)) == [NoticeKind.NEW]
    assert office.gets(1, mild, **muted) == []
    assert kinds(office.gets(2, bad, **muted)) == [NoticeKind.WORSE]
    assert kinds(office.gets(14, bad, **muted)) == [NoticeKind.REMINDER]
    assert office.gets(15, mild, **muted) == []
    assert office.gets(30, mild, **muted) == [], "as a warning it is muted"
    assert kinds(office.gets(31, bad, **muted)) == [NoticeKind.WORSE]
    assert office.gets(31.5, mild, **muted) == []
    assert office.gets(33, **muted) == [], "it flaps"
    assert kinds(office.gets(34, **muted)) == [NoticeKind.RESOLVED], "an ERROR was notified"


def test_an_error_of_one_client_breaks_through_the_mute_of_a_warning_of_another() -> None:
    office = Office()
    muted: dict[str, Any] = {"mutes": {"plausible": 48.0}, "severity": Severity.WARN}
    assert office.gets(0, warn("plausible", "acme"), **muted) == []
    assert kinds(office.gets(1, problem("plausible", "acme", "birch"), **muted)) == [NoticeKind.NEW]


@pytest.mark.parametrize("severity", [None, Severity.ERROR])
def test_a_mute_of_an_error_or_of_planned_work_covers_errors(severity: Severity | None) -> None:
    office = Office()
    for hour, it in enumerate((warn("plausible", "acme"), problem("plausible", "acme"))):
        assert office.gets(hour, it, mutes={"acme": 48}, severity=severity) == []


@pytest.mark.parametrize("name", ["sync", "acme:sync"])
def test_followers_of_a_muted_problem_are_still_held_back(name: str) -> None:
    office, mutes = Office(), {name: 48.0}
    sync, stale = problem("sync", "acme"), old_numbers("acme")
    for hour in range(30):
        assert office.gets(hour, sync, stale, mutes=mutes) == []
    assert office.gets(30, stale, mutes=mutes) == [(NoticeKind.NEW, "freshness")]


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
