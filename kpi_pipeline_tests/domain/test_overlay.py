from dataclasses import replace
from datetime import UTC, date, datetime

from kpi_pipeline.domain.columns import FACT_COUNTS
from kpi_pipeline.domain.events.overlay import CountedEvents, overlay
from kpi_pipeline.domain.metrics import DailyFact
from kpi_pipeline_tests.domain.bodies import CHICAGO

TODAY, YESTERDAY = date(2026, 3, 18), date(2026, 3, 17)
AS_OF = datetime(2026, 3, 18, 15, 0, tzinfo=UTC)
ZEROS = dict.fromkeys(FACT_COUNTS, 0)


def facts(day: date, workspace: str = "harbor", **counts: int) -> DailyFact:
    return DailyFact(workspace, day, **{**ZEROS, **counts}, as_of=AS_OF)


def overlaid(
    rows: list[DailyFact], *counted: CountedEvents, open_day: date | None = TODAY
) -> list[DailyFact]:
    return overlay(rows, counted, open_day=open_day, tz=CHICAGO)


def test_events_raise_their_own_count_of_their_own_client_and_day() -> None:
    rows = [facts(YESTERDAY, interested=2), facts(TODAY, sent=10), facts(TODAY, "quay", sent=4)]
    counted = [
        CountedEvents("harbor", TODAY, "sent", 3),
        CountedEvents("harbor", TODAY, "bounced", 1),
        CountedEvents("harbor", YESTERDAY, "interested", 5),
    ]
    assert overlaid(rows, *counted) == [
        facts(YESTERDAY, interested=7),
        facts(TODAY, sent=13, bounced=1),
        facts(TODAY, "quay", sent=4),
    ]


def test_the_facts_that_were_passed_in_are_not_changed() -> None:
    row = facts(TODAY, sent=10)
    overlaid([row], CountedEvents("harbor", TODAY, "sent", 3))
    assert row.sent == 10


def test_without_events_the_facts_come_back() -> None:
    assert overlaid([facts(TODAY, sent=1)]) == [facts(TODAY, sent=1)]
    assert overlaid([]) == []


def test_a_closed_day_without_facts_stays_missing_whatever_its_events() -> None:
    closed = CountedEvents("harbor", YESTERDAY, "interested", 2)
    assert overlaid([facts(TODAY)], closed) == [facts(TODAY)]
    assert overlaid([], CountedEvents("harbor", TODAY, "sent", 1), open_day=None) == []


def test_events_of_the_open_day_are_added_to_zeros_as_of_its_first_instant() -> None:
    counted = [
        CountedEvents("harbor", TODAY, "interested", 2),
        CountedEvents("harbor", TODAY, "replied", 1),
        CountedEvents("quay", TODAY, "sent", 1),
    ]
    start = datetime(2026, 3, 18, 5, 0, tzinfo=UTC)
    assert overlaid([], *counted) == [
        replace(facts(TODAY, interested=2, replied=1), as_of=start),
        replace(facts(TODAY, "quay", sent=1), as_of=start),
    ]
