"""Who is told what, and when; the clock is passed in."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from kpi_pipeline.alerts.problem import Line, Trouble, merged, unmuted
from kpi_pipeline.alerts.rules import Kind, after_notice, due_notices, update_states
from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.db.alerts import AlertState
from kpi_pipeline_tests.alerts.support import START, trouble

REMIND_AFTER = timedelta(hours=12)
Notices = list[tuple[Kind, str]]


class Desk:
    """Receivers who take each message, and what they are told look by look."""

    def __init__(self, *receivers: str) -> None:
        self.receivers = receivers or ("chat",)
        self.states: Mapping[str, AlertState] = {}

    def look(
        self,
        hours: float,
        *troubles: Trouble,
        down: tuple[str, ...] = (),
        mutes: Mapping[str, float] | None = None,
    ) -> dict[str, Notices]:
        now = START + timedelta(hours=hours)
        until = {name: START + timedelta(hours=it) for name, it in (mutes or {}).items()}
        heard = merged(unmuted(troubles, until, now))
        standing, gone = update_states(
            heard,
            self.states,
            hidden={it.cause for it in troubles} - {it.cause for it in heard},
            muted={name for name, it in until.items() if it > now},
            receivers=self.receivers,
            now=now,
        )
        said: dict[str, Notices] = {}
        for receiver in self.receivers:
            due = due_notices(standing, heard, receiver, remind_after=REMIND_AFTER, now=now)
            if receiver not in down:
                said[receiver] = [(it.kind, it.state.cause) for it in due]
                standing |= {it.state.cause: after_notice(it, receiver, now) for it in due}
        kept = {cause: it for cause, it in self.states.items() if cause not in gone}
        self.states = {**kept, **standing}
        return said

    def hears(self, hours: float, *troubles: Trouble, **more: object) -> Notices:
        return self.look(hours, *troubles, **more)["chat"]  # type: ignore[arg-type]


def test_a_break_is_told_once_reminded_of_every_twelve_hours_and_told_when_it_is_over() -> None:
    desk, it = Desk(), trouble()
    heard = {hour: desk.hears(hour, it) for hour in range(30)} | {30: desk.hears(30)}
    assert {hour: said for hour, said in heard.items() if said} == {
        0: [(Kind.BROKEN, "freshness")],
        12: [(Kind.STILL, "freshness")],
        24: [(Kind.STILL, "freshness")],
        30: [(Kind.WELL, "freshness")],
    }
    assert desk.hears(31) == []
    assert desk.states == {}, "nothing is kept of what is over"


def test_what_was_never_told_is_not_said_to_be_over() -> None:
    desk = Desk()
    desk.look(0, trouble(), down=("chat",))
    assert desk.hears(1) == []
    assert desk.states == {}


def test_what_mends_itself_within_its_patience_is_told_to_nobody() -> None:
    desk, it = Desk(), trouble("sync", "acme", patience=timedelta(minutes=5))
    assert desk.hears(0, it) == []
    assert desk.hears(0.05, it) == []
    assert desk.hears(0.06) == []
    assert desk.hears(1, it) == [], "it is another one, and has its own five minutes"
    assert desk.hears(1.1, it) == [(Kind.BROKEN, "sync")]


def test_what_comes_and_goes_is_told_of_twice_in_an_hour_at_most() -> None:
    desk, it = Desk(), trouble()
    said = [desk.hears(look / 4, *([it] if look % 2 == 0 else [])) for look in range(4 * 6)]
    assert len([each for each in said if each]) <= 2 * 6
    assert said[0] == [(Kind.BROKEN, "freshness")]
    assert said[1] == [(Kind.WELL, "freshness")]
    assert said[2:5] == [[], [], []]


def test_a_receiver_that_was_away_hears_once_of_how_things_stand_then() -> None:
    desk, it = Desk("chat", "mail"), trouble()
    assert desk.look(0, it, down=("mail",)) == {"chat": [(Kind.BROKEN, "freshness")]}
    for minutes in range(1, 10):
        assert desk.look(minutes / 60, it, down=("mail",)) == {"chat": []}
    assert desk.look(0.2, it) == {"chat": [], "mail": [(Kind.BROKEN, "freshness")]}
    assert desk.look(0.3, it) == {"chat": [], "mail": []}
    assert desk.look(5, down=("mail",)) == {"chat": [(Kind.WELL, "freshness")]}
    assert desk.look(9) == {"chat": [], "mail": [(Kind.WELL, "freshness")]}
    desk.look(10)
    assert desk.states == {}


def test_a_receiver_that_is_new_hears_of_what_is_wrong_and_one_that_left_holds_up_nothing() -> None:
    desk, it = Desk("chat"), trouble()
    desk.look(0, it)
    desk.receivers = ("mail",)
    assert desk.look(1, it) == {"mail": [(Kind.BROKEN, "freshness")]}
    assert desk.look(2) == {"mail": [(Kind.WELL, "freshness")]}
    assert desk.look(3.1) == {"mail": []}
    assert desk.states == {}


def test_more_clients_or_a_worse_grade_are_told_of_after_an_hour_and_fewer_are_not() -> None:
    desk = Desk()
    warned = trouble("freshness", "acme", "birch", severity=Severity.WARN)
    assert desk.hears(0, warned) == [(Kind.BROKEN, "freshness")]
    assert desk.hears(0.5, trouble("freshness", "acme", "birch", "cedar")) == []
    more = trouble("freshness", "acme", "cedar", severity=Severity.WARN)
    assert desk.hears(1.0, more) == [(Kind.WORSE, "freshness")]
    assert desk.hears(2.5, warned) == [], "birch was told of, and is back"
    assert desk.hears(3, trouble("freshness", "acme")) == [(Kind.WORSE, "freshness")]
    assert desk.hears(5, trouble("freshness", "acme")) == []


def old_numbers(*clients: str, **changed: Any) -> Trouble:
    """What a sync that fails makes old, until a round of checks sees what the next one brings."""
    minutes = timedelta(minutes=20)
    return trouble("freshness", *clients, follows="sync", afterwards=minutes, **changed)


def test_old_numbers_are_not_told_beside_the_failing_sync_that_made_them_old() -> None:
    desk = Desk()
    sync, stale = trouble("sync", "acme", "birch"), old_numbers("acme")
    assert desk.hears(0, sync) == [(Kind.BROKEN, "sync")]
    assert desk.hears(3, sync, stale) == []
    assert desk.hears(3.9, sync, stale) == []
    # The sync is well again; the next round of checks will see that the numbers are new.
    assert desk.hears(4, stale) == [(Kind.WELL, "sync")]
    assert desk.hears(4.25) == []


def test_old_numbers_of_other_clients_or_that_stay_old_are_told() -> None:
    desk = Desk()
    sync, stale = trouble("sync", "acme"), old_numbers("acme")
    assert desk.hears(0, sync) == [(Kind.BROKEN, "sync")]
    both = old_numbers("acme", "birch")
    assert desk.hears(1, sync, both) == [(Kind.BROKEN, "freshness")]

    other = Desk()
    other.look(0, sync, stale)
    other.look(0.9, sync, stale)
    assert other.hears(1, stale) == [(Kind.WELL, "sync")]
    assert other.hears(1.5, stale) == [(Kind.BROKEN, "freshness")]


def test_a_muted_client_is_left_out_and_when_all_are_nothing_is_told() -> None:
    lines = (Line("4 h old", ("acme",)), Line("5 h old", ("birch", "acme")), Line("All late"))
    it = trouble("freshness", "acme", "birch", lines=lines)
    until = {"acme": START + timedelta(hours=1)}
    (heard,) = unmuted([it], until, START)
    assert heard.clients == ("birch",)
    assert heard.lines == (Line("5 h old", ("birch",)), Line("All late"))

    desk = Desk()
    assert desk.hears(0, it, mutes={"acme": 9, "birch": 9}) == []
    assert desk.hears(9.1, it) == [(Kind.BROKEN, "freshness")], "the mutes are over"


def test_muting_those_whose_lines_are_shown_hides_none_of_the_others() -> None:
    it = trouble("freshness", "acme", "birch", lines=(Line("4 h old", ("acme",)),), more=1)
    (heard,) = unmuted([it], {"acme": START + timedelta(hours=1)}, START)
    assert (heard.clients, heard.lines, heard.more) == (("birch",), (), 1)


def test_a_muted_check_is_told_of_neither_its_break_nor_a_reminder_nor_its_end() -> None:
    desk, it = Desk(), trouble()
    assert desk.hears(0, it) == [(Kind.BROKEN, "freshness")]
    for hour in (1, 13, 25):
        assert desk.hears(hour, it, mutes={"freshness": 48}) == []
    assert desk.hears(26, it) == [(Kind.STILL, "freshness")], "it was told of all the same"
    assert desk.hears(27, mutes={"freshness": 48}) == []
    assert desk.hears(49) == []
    assert desk.states == {}


def test_troubles_of_one_cause_are_one_named_for_the_worst() -> None:
    warned = trouble(
        "outage", "acme", name="complete", title="n of m", severity=Severity.WARN, since=START
    )
    failed = trouble("outage", "birch", name="freshness", since=START + timedelta(hours=1))
    (one,) = merged([warned, failed])
    assert (one.title, one.severity, one.since) == (failed.title, Severity.ERROR, START)
    assert one.clients == ("acme", "birch")
    assert one.names == ("freshness", "complete")
    assert one.lines == (Line("n of m", ("acme",)),)
    assert Desk().hears(0, warned, failed) == [(Kind.BROKEN, "outage")]


def test_several_new_troubles_are_told_the_worst_first_and_what_is_over_last() -> None:
    desk = Desk()
    desk.look(0, trouble("old"))
    warned = trouble("plausible", severity=Severity.WARN)
    assert desk.hears(2, warned, trouble("complete")) == [
        (Kind.BROKEN, "complete"),
        (Kind.BROKEN, "plausible"),
        (Kind.WELL, "old"),
    ]
