"""The text of a message, and its size limit."""

from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest

from kpi_pipeline.alerts.message import MAX_BYTES, Message, compose, cut
from kpi_pipeline.alerts.problem import Line, Problem
from kpi_pipeline.alerts.rules import Notice, NoticeKind, update_states
from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.domain.formatting import duration, listed
from kpi_pipeline_tests.alerts.support import PAGE, START, problem

CHICAGO = ZoneInfo("America/Chicago")


def notice(it: Problem, kind: NoticeKind = NoticeKind.NEW) -> Notice:
    states, _ = update_states([it], {}, hidden=(), muted=(), receivers=(), now=START)
    return Notice(kind, states[it.cause], None if kind is NoticeKind.RESOLVED else it)


def message(*notices: Notice, hours: float = 0) -> Message:
    now = START + timedelta(hours=hours)
    return compose(notices, timezone=CHICAGO, page=PAGE, now=now)


def size(it: Message) -> int:
    return len(it.title.encode()) + len(it.body.encode())


def test_a_message_has_the_problem_clients_time_numbers_page_and_what_to_do() -> None:
    it = problem(
        "freshness",
        "acme",
        "birch",
        lines=(Line("age_hours 4", ("acme",)), Line("age_hours 5", ("birch",))),
        path="/assets/client_metrics?view=checks&checkDetail=freshness",
    )
    sent = message(notice(it))
    assert sent.title == "ERROR: freshness of client_metrics"
    assert sent.bad is True
    assert sent.body.splitlines() == [
        "ERROR: freshness of client_metrics",
        "Since Wed 18 Mar 2026, 15:00 CDT.",
        "Clients (2): acme, birch",
        "Some rows are old. Start the refresh.",
        "- acme: age_hours 4",
        "- birch: age_hours 5",
        f"See {PAGE}/assets/client_metrics?view=checks&checkDetail=freshness",
        "To mute it for two days: kpi alerts mute freshness --for 2d",
    ]


def test_reminders_and_worsened_problems_say_so_in_their_first_word() -> None:
    it = problem(severity=Severity.WARN)
    assert message(notice(it, NoticeKind.REMINDER)).title.startswith("STILL WARN: freshness")
    assert message(notice(it, NoticeKind.WORSE)).title.startswith("WORSE, WARN: freshness")


def test_a_resolved_problem_says_how_long_it_lasted() -> None:
    sent = message(notice(problem(), NoticeKind.RESOLVED), hours=26)
    assert sent.title == "RESOLVED: freshness of client_metrics"
    assert sent.bad is False
    assert "It started Wed 18 Mar 2026, 15:00 CDT and lasted 1 d 2 h." in sent.body


def test_several_notices_are_one_message_whose_title_counts_them() -> None:
    sent = message(
        notice(problem("a")), notice(problem("b")), notice(problem("c"), NoticeKind.RESOLVED)
    )
    assert sent.title == "KPIs: 2 problems, 1 resolved: a of client_metrics; b of client_metrics"
    assert sent.body.count("See ") == 2
    over = message(
        notice(problem("a"), NoticeKind.RESOLVED), notice(problem("b"), NoticeKind.RESOLVED)
    )
    assert over.title == "KPIs: 2 resolved: a of client_metrics; b of client_metrics"


@pytest.mark.parametrize("more", [0, 450])
def test_500_stale_clients_are_one_message_under_4_kb(more: int) -> None:
    clients = [f"client-{number:03}-{'x' * 50}" for number in range(500)]
    shown = clients[: 500 - more]
    lines = tuple(Line(f"age_hours 4, as_of {'é' * 300}", (it,)) for it in shown)
    it = problem("freshness", *clients, lines=lines, more=more, what="ü" * 2_000)
    sent = message(notice(it))
    assert size(sent) < MAX_BYTES
    assert "Clients (500): client-000" in sent.body
    assert " and 493 more" in sent.body
    assert "- … and 495 more" in sent.body


def test_clients_and_lines_are_counted_separately() -> None:
    lines = tuple(Line(f"day {day}", ("acme",)) for day in range(50))
    sent = message(notice(problem("complete", "acme", "birch", lines=lines, more=12)))
    assert "Clients (2): acme, birch\n" in sent.body
    assert "- … and 57 more" in sent.body


def test_many_problems_are_one_message_under_4_kb_that_counts_the_rest() -> None:
    sent = message(*(notice(problem(f"check-{number}", what="ö" * 900)) for number in range(60)))
    assert size(sent) < MAX_BYTES
    assert sent.title.startswith("KPIs: 60 problems: ")
    last = sent.body.splitlines()[-1]
    shown = sent.body.count("ERROR: ")
    assert last == f"… and {60 - shown} more: `kpi alerts list` shows them all."


def test_a_reason_shared_by_many_clients_names_three_of_them_on_one_line() -> None:
    line = Line("answered 503.\nSee whether it is up.", ("a", "b", "c", "d"))
    sent = message(notice(problem("sync", "a", "b", "c", "d", lines=(line,))))
    assert "- a, b, c and 1 more: answered 503. See whether it is up." in sent.body


def test_lists_texts_and_durations_are_shortened() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(["a", "b", "c"], 1) == "a and 2 more"
    assert cut("a  b\nc", 5) == "a b c"
    assert cut("abcdef", 4) == "abc…"
    spans = [timedelta(minutes=7), timedelta(hours=2, minutes=5), timedelta(days=3, hours=1)]
    assert [duration(it) for it in spans] == ["7 min", "2 h 5 min", "3 d 1 h"]
