from dataclasses import replace
from datetime import UTC, date, datetime

from kpi_pipeline.domain.columns import FACT_COUNTS
from kpi_pipeline.domain.events.overlay import CountedEvents, days_of_events, overlay
from kpi_pipeline.domain.metrics import DailyFact
from kpi_pipeline_tests.domain.bodies import CHICAGO

TODAY, YESTERDAY = date(2026, 3, 18), date(2026, 3, 17)
AS_OF = datetime(2026, 3, 18, 15, 0, tzinfo=UTC)
ZEROS = dict.fromkeys(FACT_COUNTS, 0)


def facts(day: date, workspace: str = "harbor", **counts: int) -> DailyFact:
    return DailyFact(workspace, day, **{**ZEROS, **counts}, as_of=AS_OF)


def overlaid(rows: list[DailyFact], *counted: CountedEvents) -> list[DailyFact]:
    return overlay(rows, counted)


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


def test_a_day_without_facts_stays_missing_whatever_its_events() -> None:
    unfetched = CountedEvents("harbor", YESTERDAY, "interested", 2)
    assert overlaid([facts(TODAY)], unfetched) == [facts(TODAY)]
    assert overlaid([], CountedEvents("harbor", TODAY, "sent", 1)) == []


def test_for_a_row_of_its_own_an_unfetched_day_has_zeros_and_its_events_as_of_midnight() -> None:
    counted = [
        CountedEvents("harbor", TODAY, "interested", 2),
        CountedEvents("harbor", TODAY, "replied", 1),
        CountedEvents("quay", TODAY, "sent", 1),
    ]
    start = datetime(2026, 3, 18, 5, 0, tzinfo=UTC)
    rows = [("harbor", TODAY), ("quay", TODAY), ("harbor", YESTERDAY)]
    assert days_of_events(rows, counted, CHICAGO) == [
        replace(facts(TODAY, interested=2, replied=1), as_of=start),
        replace(facts(TODAY, "quay", sent=1), as_of=start),
        replace(facts(YESTERDAY), as_of=datetime(2026, 3, 17, 5, 0, tzinfo=UTC)),
    ]
