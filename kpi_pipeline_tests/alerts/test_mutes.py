"""What a mute covers, and what breaks through it; the clock is passed in."""

from datetime import timedelta
from typing import Any

import pytest

from kpi_pipeline.alerts.problem import Line, without_muted
from kpi_pipeline.alerts.rules import NoticeKind
from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.db.alerts import Mute, mute, read_mutes, read_states
from kpi_pipeline_tests.alerts.rounds import Rounds, at, kinds, old_numbers, warn
from kpi_pipeline_tests.alerts.support import START, Office, problem, titles
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver


def muting(*names: str) -> dict[str, Mute]:
    return {name: Mute(name, at(1), START) for name in names}


def test_a_muted_client_is_left_out_and_with_all_muted_nothing_is_notified() -> None:
    lines = (Line("4 h old", ("acme",)), Line("5 h old", ("birch", "acme")), Line("All late"))
    it = problem("freshness", "acme", "birch", lines=lines)
    (current,) = without_muted([it], muting("acme"))
    assert current.clients == ("birch",)
    assert current.lines == (Line("5 h old", ("birch",)), Line("All late"))

    office = Rounds()
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
    office, it = Rounds(), problem("plausible", "acme")
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
    office, it = Rounds(), problem()
    assert office.gets(0, it) == [(NoticeKind.NEW, "freshness")]
    for hour in (1, 13, 25):
        assert office.gets(hour, it, mutes={"freshness": 48}, muted_at=1) == []
    assert office.gets(26, it) == [(NoticeKind.REMINDER, "freshness")], (
        "the receiver knew of it before"
    )
    assert office.gets(27, mutes={"freshness": 48}, muted_at=27) == []
    assert office.gets(49) == [(NoticeKind.RESOLVED, "freshness")]
    office.gets(73)
    assert office.states == {}

    muted = Rounds()
    muted.gets(0, it, mutes={"freshness": 48})
    muted.gets(1, mutes={"freshness": 48})
    assert (muted.notices, muted.states) == ([], {}), "nobody was notified of it"


@pytest.mark.parametrize("name", ["plausible", "acme", "acme:plausible"])
def test_an_error_breaks_through_a_mute_that_was_made_of_a_warning(name: str) -> None:
    office = Rounds()
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
    office = Rounds()
    muted: dict[str, Any] = {"mutes": {"plausible": 48.0}, "severity": Severity.WARN}
    assert office.gets(0, warn("plausible", "acme"), **muted) == []
    assert kinds(office.gets(1, problem("plausible", "acme", "birch"), **muted)) == [NoticeKind.NEW]


@pytest.mark.parametrize("severity", [None, Severity.ERROR])
def test_a_mute_of_an_error_or_of_planned_work_covers_errors(severity: Severity | None) -> None:
    office = Rounds()
    for hour, it in enumerate((warn("plausible", "acme"), problem("plausible", "acme"))):
        assert office.gets(hour, it, mutes={"acme": 48}, severity=severity) == []


@pytest.mark.parametrize("name", ["sync", "acme:sync"])
def test_followers_of_a_muted_problem_are_still_held_back(name: str) -> None:
    office, mutes = Rounds(), {name: 48.0}
    sync, stale = problem("sync", "acme"), old_numbers("acme")
    for hour in range(30):
        assert office.gets(hour, sync, stale, mutes=mutes) == []
    assert office.gets(30, stale, mutes=mutes) == [(NoticeKind.NEW, "freshness")]


@pytest.mark.parametrize("name", ["plausible", "acme", "acme:plausible"])
def test_a_mute_remembers_the_severity_of_what_is_wrong_when_it_is_made(
    office: Office, name: str
) -> None:
    office.check("plausible", "acme", severity="WARN")
    assert made(office, name).severity == "WARN"
    office.check("plausible", passed=True)
    assert made(office, name).severity == "WARN", "a longer mute of what it was made for"
    office.check("plausible", "acme", severity="ERROR")
    assert made(office, name).severity == "ERROR"


@pytest.mark.parametrize("name", ["freshness", "birch", "birch:plausible", "acme:freshness"])
def test_a_mute_before_planned_work_remembers_no_severity(office: Office, name: str) -> None:
    office.check("plausible", "acme", severity="WARN")
    assert made(office, name).severity is None


def test_muting_a_warning_of_one_client_does_not_hide_an_error_of_another(
    office: Office, receiver: Receiver
) -> None:
    office.check("plausible", "acme", severity="WARN")
    office.evaluate_at(0)
    made(office, "plausible")
    office.check("plausible", "acme", "birch")
    office.evaluate_at(15)
    office.evaluate_at(30)
    first, second = titles(receiver.received)
    assert (first[:6], second[:13]) == ("WARN: ", "WORSE, ERROR:")
    assert "birch" in second


def test_stale_numbers_are_held_back_while_the_failing_sync_is_muted(
    office: Office, receiver: Receiver
) -> None:
    office.sync("acme", "acme: answered 503")
    office.evaluate_at(0)
    made(office, "sync")
    office.check("freshness", "acme")
    for minutes in (10, 60, 600):
        office.evaluate_at(minutes)
    assert receiver.received == []


def test_a_problem_that_is_muted_is_listed_as_such(office: Office) -> None:
    office.check("plausible", "acme", severity="WARN")
    made(office, "acme:plausible")
    office.evaluate_at(0)
    with office.engine.connect() as connection:
        (state,) = read_states(connection).values()
    assert (state.clients, state.severity, state.muted_at) == (("acme",), "WARN", START)


def made(office: Office, name: str) -> Mute:
    """Mute the name for two days; the mute as it is stored."""
    with office.engine.begin() as connection:
        mute(connection, name, office.now + timedelta(days=2), office.now)
        return read_mutes(connection, office.now)[name]
