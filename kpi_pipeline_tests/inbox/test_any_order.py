from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kpi_pipeline.domain.events.event import Event
from kpi_pipeline_tests.db.stocked import AS_OF, TODAY
from kpi_pipeline_tests.domain.bodies import content, email_sent, lead, parsed
from kpi_pipeline_tests.inbox.support import LATER, Clients

HOUR = timedelta(hours=1)
Outcome = tuple[list[dict[str, Any]], list[Any]]
OLD = {
    TODAY - timedelta(days=1): AS_OF - 25 * HOUR,
    TODAY - timedelta(days=21): AS_OF - 501 * HOUR,
}
SHOWN = [TODAY - timedelta(days=number) for number in range(3)]
# Of two clients and of today, yesterday and last month; some are held by the facts already.
EVENTS = [
    *(lead(number, 101 + number % 2, LATER) for number in range(1, 5)),
    lead(5, 101, AS_OF - HOUR),
    email_sent(1, AS_OF - 24 * HOUR, LATER),
    email_sent(2, AS_OF - 500 * HOUR, LATER),
    lead(6, 109, LATER),
    parsed(content("email_opened"), LATER),
    parsed(b"no event", LATER),
]


def numbers(clients: Clients) -> list[dict[str, Any]]:
    """The rows without when and by whom they were written."""
    left_out = {"updated_at", "source"}
    return [
        {name: value for name, value in row.items() if name not in left_out}
        for row in clients.rows().values()
    ]


def outcome_of(clients: Clients, batches: list[list[Event]]) -> Outcome:
    """The rows and the inbox after these batches, from the facts alone on."""
    clients.sql("DELETE FROM webhook_events")
    clients.sql("DELETE FROM client_metrics")
    clients.sql("DELETE FROM raw_bison_stats")
    for workspace in ("harbor", "quay"):
        # The facts of these days are older than the mails of the events.
        for day, as_of in OLD.items():
            clients.stock(workspace, day, day, as_of=as_of)
        clients.stock(workspace, shown=SHOWN, without=OLD)
    for batch in batches:
        clients.ingest(*batch)
    kept = clients.sql(
        "SELECT idempotency_key, status, business_date FROM webhook_events ORDER BY 1"
    )
    return numbers(clients), list(kept)


@st.composite
def _batches(draw: st.DrawFn) -> list[list[Event]]:
    """All the events in any order, some twice, cut anywhere into batches."""
    twice = draw(st.lists(st.sampled_from(EVENTS), max_size=4))
    events = draw(st.permutations([*EVENTS, *(replace(it) for it in twice)]))
    cuts = sorted(draw(st.sets(st.integers(0, len(events)), max_size=4)))
    return [events[a:b] for a, b in zip([0, *cuts], [*cuts, len(events)], strict=True)]


@pytest.fixture
def in_order(clients: Clients) -> Outcome:
    """What comes of all events in one batch."""
    return outcome_of(clients, [EVENTS])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=_batches())
def test_any_order_and_batches_and_any_of_them_twice_give_the_same_rows(
    clients: Clients, in_order: Outcome, batches: list[list[Event]]
) -> None:
    assert outcome_of(clients, batches) == in_order
    assert clients.number("positive_replies_today") == 3 + 2
    assert clients.number("positive_replies_today", "quay") == 3 + 2
    assert clients.number("emails_sent_mtd") == 100 * 18 + 1
