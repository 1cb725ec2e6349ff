"""What gets worse is notified at once, and what comes and goes seldom; the clock is passed in."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from kpi_pipeline.alerts.problem import Line, Problem
from kpi_pipeline.alerts.rules import NoticeKind
from kpi_pipeline_tests.alerts.rounds import Rounds, kinds, warn
from kpi_pipeline_tests.alerts.support import problem


def test_a_check_that_flaps_every_20_minutes_is_5_messages_a_day_that_say_how_often() -> None:
    office, it = Rounds(), problem()
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
    office, it = Rounds(), problem()
    open_for, sent = False, []
    for quarter in range(5 * 24 * 4):
        is_wrong = quarter // 6 % 2 == 0  # 90 minutes each
        for kind in kinds(office.gets(quarter / 4, *([it] if is_wrong else []))):
            sent.append(quarter / 4)
            open_for = kind is not NoticeKind.RESOLVED
        assert open_for or not is_wrong, f"after {quarter / 4} h"
    assert max(len([it for it in sent if 0 <= it - since < 24]) for since in sent) <= 6


def test_an_escalation_is_notified_at_once_and_again_after_it_was_a_warning_in_between() -> None:
    office = Rounds()
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


def test_clients_that_join_a_warning_are_notified_after_an_hour_and_fewer_are_not() -> None:
    office = Rounds()
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
    office, clients = Rounds(), [f"client-{n:02}" for n in range(40)]
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
    office = Rounds()
    down = ("acme", "birch", "cedar")
    office.gets(0, failing({"timeout": down}))
    office.gets(0.05, failing({"timeout": down[:2], "401": ("cedar",)}))
    assert [it.kind for it in office.notices] == [NoticeKind.NEW, NoticeKind.WORSE]
    assert office.notices[-1].joined == ("cedar",)
    assert office.gets(8, failing({"401": ("cedar",)})) == [], "known"
    assert kinds(office.gets(9, failing({"401": ("acme", "cedar")}))) == [NoticeKind.WORSE]
    assert office.notices[-1].joined == ("acme",)


def test_a_check_with_too_many_rows_to_know_their_kinds_is_not_worse_for_that() -> None:
    office, few, many = Rounds(), failing({"401": ("acme",)}), problem("sync", "acme", "birch")
    office.gets(0, few)
    office.gets(1, many)
    office.gets(3, failing({"401": ("acme",), "unread": ("birch",)}))
    assert [it.joined for it in office.notices] == [(), ("birch",)]


def test_an_error_that_a_retry_mends_within_its_grace_is_not_notified_in_an_open_problem() -> None:
    office, grace = Rounds(), timedelta(minutes=5)
    for n in range(120):
        blip = ("birch",) if n % 30 < 5 else ()
        kinds_now = {"401": ("acme",), **({"timeout": blip} if blip else {})}
        office.gets(n / 60, failing(kinds_now, grace=grace))
    assert [(it.kind, it.problem.clients) for it in office.notices if it.problem] == [
        (NoticeKind.NEW, ("acme",))
    ]


def test_kinds_without_end_are_not_messages_without_end() -> None:
    office = Rounds()
    for n in range(24 * 60):
        office.gets(n / 60, failing({f"kind {n}": ("acme",)}))
    assert len(office.notices) <= 6 + 24
