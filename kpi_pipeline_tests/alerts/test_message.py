"""The text of a message, and its size limit."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from kpi_pipeline.alerts.message import MAX_BYTES, Message, MessageType, compose, cut
from kpi_pipeline.alerts.problem import Line, Problem
from kpi_pipeline.alerts.rules import Notice, NoticeKind
from kpi_pipeline.alerts.wording import WORDING
from kpi_pipeline.checks.outcome import Check, Severity
from kpi_pipeline.db.alerts import SYNC, AlertState
from kpi_pipeline.domain.formatting import duration, listed
from kpi_pipeline.domain.outside_names import for_chat
from kpi_pipeline_tests.alerts.support import PAGE, START, problem

CHICAGO = ZoneInfo("America/Chicago")


def notice(it: Problem, kind: NoticeKind = NoticeKind.NEW, **changed: Any) -> Notice:
    state = AlertState(
        it.cause, it.title, it.severity.value, it.names, it.clients, it.since, tell_from=it.since
    )
    return Notice(kind, state, None if kind is NoticeKind.RESOLVED else it, **changed)


def message(*notices: Notice, hours: float = 0) -> Message:
    now = START + timedelta(hours=hours)
    return compose(notices, timezone=CHICAGO, page=PAGE, now=now)


def size(it: Message) -> int:
    """Bytes as they are sent."""
    return len(for_chat(it.title).encode()) + len(for_chat(it.body).encode())


def test_a_message_leads_with_what_happened_to_whom_since_when_and_says_what_to_do() -> None:
    it = problem(
        "freshness",
        "acme",
        "birch",
        lines=(Line("its numbers are 4 h old", ("acme",)), Line("it has no row yet", ("birch",))),
        path="/assets/client_metrics?view=checks&checkDetail=freshness",
    )
    sent = message(notice(it), hours=2)
    assert sent.title == "ERROR: freshness of client_metrics for acme and birch"
    assert sent.type is MessageType.FAILURE
    assert sent.body.splitlines() == [
        "ERROR: freshness of client_metrics for acme and birch",
        "Since Wed 18 Mar 2026, 15:00 CDT (2 h 0 min).",
        "- acme: its numbers are 4 h old",
        "- birch: it has no row yet",
        "Some rows are old. Start the refresh.",
        f"See {PAGE}/assets/client_metrics?view=checks&checkDetail=freshness",
        "To mute it for two days: kpi alerts mute freshness --for 2d",
    ]


def test_a_problem_of_one_client_suggests_to_mute_it_for_that_client_alone() -> None:
    one = message(notice(problem("plausible", "acme")))
    assert one.body.endswith("kpi alerts mute acme:plausible --for 2d")
    merged = message(notice(problem("plausible", "acme", also=("complete",))))
    assert merged.body.endswith("kpi alerts mute plausible --for 2d")
    lines = (Line("rejected", ("acme",)), Line("main 107: Willow Labs"))
    others = message(notice(problem("registry_matches_bison", "acme", lines=lines)))
    assert others.body.endswith("kpi alerts mute registry_matches_bison --for 2d")
    strange = message(notice(problem("receiver json://127.0.0.1 #2")))
    assert strange.body.endswith("kpi alerts mute 'receiver json://127.0.0.1 #2' --for 2d")


def test_many_clients_are_counted_in_the_heading_and_listed_below() -> None:
    clients = [f"client-{number:02}" for number in range(20)]
    lines = message(notice(problem("sync", *clients, title="the sync fails"))).body.splitlines()
    assert lines[0] == "ERROR: the sync fails for 20 clients"
    assert lines[2].startswith("Clients (20): client-00, client-01")


def test_a_client_that_joins_is_named_first() -> None:
    clients = [f"client-{number:02}" for number in range(20)]
    lines = tuple(Line("answered 503", (it,)) for it in clients)
    it = problem("sync", *clients, title="the sync fails", lines=lines)
    sent = message(notice(it, NoticeKind.WORSE, joined=("client-17",)))
    assert sent.title == "WORSE, ERROR: the sync fails for client-17 as well, 20 clients in all"
    shown = sent.body.splitlines()
    assert shown[2].startswith("Clients (20): client-17, client-00, client-01")
    assert shown[3] == "- client-17: answered 503"


def test_a_problem_that_comes_and_goes_says_that_it_flaps_and_how_often() -> None:
    sent = message(notice(problem("plausible", "acme"), flaps=5))
    assert sent.title == "ERROR, FLAPPING: plausible of client_metrics for acme"
    assert "It flaps: it began 5 times within 24 hours" in sent.body
    ended = message(notice(problem("plausible", "acme"), NoticeKind.RESOLVED, flaps=5))
    assert "It flapped: it began 5 times within 24 hours." in ended.body


def test_reminders_and_worsened_problems_say_so_in_their_first_word() -> None:
    it = problem(severity=Severity.WARN)
    assert message(notice(it, NoticeKind.REMINDER)).title.startswith("STILL WARN: freshness")
    assert message(notice(it, NoticeKind.WORSE)).title.startswith("WORSE, WARN: freshness")


def test_the_end_of_a_problem_says_what_is_well_again_for_whom_and_how_long_it_lasted() -> None:
    sent = message(notice(problem("sync", "acme"), NoticeKind.RESOLVED), hours=26)
    assert sent.title == "RESOLVED: the sync works again for acme"
    assert sent.type is MessageType.SUCCESS
    assert sent.body.splitlines()[1:] == [
        "It lasted 1 d 2 h: from Wed 18 Mar 2026, 15:00 CDT to Thu 19 Mar 2026, 17:00 CDT."
    ]


@pytest.mark.parametrize(
    ("title", "well"),
    [
        ("the schedule daily_kpi_sync fails", "the schedule daily_kpi_sync works again"),
        ("the last run of clean_up_runs failed", "the last run of clean_up_runs succeeded"),
        ("the receiver Slack accepts no alerts", "the receiver Slack accepts alerts again"),
        ("something else is wrong", "daily works again"),
    ],
)
def test_the_end_of_any_other_problem_follows_from_its_title(title: str, well: str) -> None:
    ended = message(notice(problem("daily", title=title), NoticeKind.RESOLVED))
    assert ended.title == f"RESOLVED: {well}"


def test_each_check_has_words_for_its_problem_and_for_its_end() -> None:
    assert set(WORDING) == {*Check, SYNC}


@pytest.mark.parametrize(
    ("severities", "kind"),
    [
        ((Severity.WARN,), MessageType.WARNING),
        ((Severity.WARN, Severity.ERROR), MessageType.FAILURE),
        ((), MessageType.SUCCESS),
    ],
)
def test_a_warning_is_no_failure(severities: Sequence[Severity], kind: MessageType) -> None:
    notices = [notice(problem(f"{it}", severity=it)) for it in severities]
    assert message(*notices, notice(problem("c"), NoticeKind.RESOLVED)).type is kind


def test_several_notices_are_one_message_whose_title_counts_them() -> None:
    sent = message(
        notice(problem("a")), notice(problem("b")), notice(problem("c"), NoticeKind.RESOLVED)
    )
    assert sent.title == "KPIs: 2 problems, 1 resolved: a of client_metrics; b of client_metrics"
    assert sent.body.count("See ") == 2
    over = message(
        notice(problem("a"), NoticeKind.RESOLVED), notice(problem("b"), NoticeKind.RESOLVED)
    )
    assert over.title == "KPIs: 2 resolved: a works again; b works again"


@pytest.mark.parametrize("more", [0, 450])
def test_500_stale_clients_are_one_message_under_4_kb(more: int) -> None:
    clients = [f"client-{number:03}-{'x' * 50}" for number in range(500)]
    shown = clients[: 500 - more]
    lines = tuple(Line(f"age_hours 4, as_of {'é' * 300}", (it,)) for it in shown)
    it = problem("freshness", *clients, lines=lines, more=more, what="ü" * 2_000)
    sent = message(notice(it))
    assert size(sent) < MAX_BYTES
    assert sent.title == "ERROR: freshness of client_metrics for 500 clients"
    assert "Clients (500): client-000" in sent.body
    assert " and 493 more" in sent.body
    assert "- … and 495 more" in sent.body


def test_clients_and_lines_are_counted_separately() -> None:
    lines = tuple(Line(f"day {day}", ("acme",)) for day in range(50))
    sent = message(notice(problem("complete", "acme", "birch", lines=lines, more=12)))
    assert "for acme and birch\n" in sent.body
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


def test_names_full_of_commands_to_a_chat_stay_under_4_kb_as_they_are_sent() -> None:
    lines = tuple(Line("<@here" * 99, ("acme",)) for _ in range(9))
    sent = message(notice(problem("sync", "acme", lines=lines, what="@all " * 999)))
    assert size(sent) < MAX_BYTES


def test_lists_texts_and_durations_are_shortened() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(["a", "b", "c"], 1) == "a and 2 more"
    assert cut("a  b\nc", 5) == "a b c"
    assert cut("abcdef", 4) == "abc…"
    spans = [timedelta(minutes=7), timedelta(hours=2, minutes=5), timedelta(days=3, hours=1)]
    assert [duration(it) for it in spans] == ["7 min", "2 h 5 min", "3 d 1 h"]
