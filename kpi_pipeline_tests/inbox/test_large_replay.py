"""A replay of any number of events: few parameters, little memory, and the right numbers."""

import tracemalloc
from typing import Any

import pytest
from sqlalchemy import event

from kpi_pipeline.db.events.stored import choose_events
from kpi_pipeline.domain.events.event import EventStatus
from kpi_pipeline.inbox import replay as replaying
from kpi_pipeline.inbox.replay import ReplayReport, replay
from kpi_pipeline_tests.db.stocked import TODAY
from kpi_pipeline_tests.domain.bodies import content, parsed
from kpi_pipeline_tests.inbox.support import LATER, Clients

MONTH_SO_FAR = 3 * 18
# Leads of two clients, without bodies.
_LEADS = """
    INSERT INTO webhook_events (
        instance, source, arrived_at, idempotency_key, event_type, bison_workspace_id, workspace,
        metric, business_date, status, tries)
    SELECT 'main', 'webhook', :at, 'lead ' || i, 'lead_interested', 101 + i % 2,
        CASE i % 2 WHEN 0 THEN 'harbor' ELSE 'quay' END, 'interested', :today, :status, 5
    FROM generate_series(1, :number) i
"""


@pytest.fixture
def stocked(clients: Clients) -> Clients:
    for workspace in ("harbor", "quay"):
        clients.stock(workspace, shown=[TODAY])
    return clients


def store(clients: Clients, number: int, status: str) -> None:
    clients.sql(_LEADS, at=LATER, today=TODAY, status=status, number=number)


def most_parameters(clients: Clients) -> list[int]:
    """The number of parameters of each statement from now on."""
    numbers: list[int] = []

    def note(_: Any, __: Any, ___: str, parameters: Any, *____: Any) -> None:
        numbers.append(len(parameters or ()))

    event.listen(clients.engine, "before_cursor_execute", note)
    return numbers


def test_no_statement_of_a_replay_has_a_parameter_for_each_event(
    stocked: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "_BATCH", 700)
    store(stocked, 1_001, "set_aside")
    numbers = most_parameters(stocked)
    assert replay(stocked.inbox()) == ReplayReport(events=1_001, applied=1_001, left=0)
    everything = replay(stocked.inbox(), statuses=list(EventStatus), workspaces=["harbor", "quay"])
    assert everything == ReplayReport(events=1_001, applied=1_001, left=0)
    assert max(numbers) < 100
    assert stocked.number("positive_replies_mtd") == MONTH_SO_FAR + 500
    assert stocked.number("positive_replies_mtd", "quay") == MONTH_SO_FAR + 501


def test_events_that_are_understood_only_now_are_parsed_in_small_parts(
    stocked: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "_BODIES", 2)
    leads = [
        parsed(content(data={"lead": {"id": n}, "campaign": {"id": 3}}), LATER) for n in range(1, 6)
    ]
    stocked.ingest(*leads, realtime=False)
    stocked.sql(
        "UPDATE webhook_events SET status = 'invalid', metric = NULL, "
        "idempotency_key = 'old ' || id"
    )
    assert replay(stocked.inbox()) == ReplayReport(events=5, applied=5, left=0)
    assert stocked.number("positive_replies_mtd") == MONTH_SO_FAR + 5


def test_what_is_stored_while_a_replay_goes_on_is_no_part_of_it(
    stocked: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(stocked, 2, "set_aside")
    arriving = iter(range(10, 100))

    def choose_and_store(*args: Any, **named: Any) -> Any:
        chosen = choose_events(*args, **named)
        data = {"lead": {"id": next(arriving)}, "campaign": {"id": 3}}
        stocked.ingest(parsed(content(data=data), LATER), realtime=False)
        return chosen

    monkeypatch.setattr(replaying, "choose_events", choose_and_store)
    assert replay(stocked.inbox()) == ReplayReport(events=2, applied=2, left=0)


@pytest.mark.long
@pytest.mark.weekly
@pytest.mark.timeout(900)
def test_two_hundred_thousand_events_are_replayed_in_little_memory(stocked: Clients) -> None:
    store(stocked, 200_000, "set_aside")
    numbers = most_parameters(stocked)
    tracemalloc.start()
    try:
        report = replay(stocked.inbox())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report == ReplayReport(events=200_000, applied=200_000, left=0)
    assert stocked.number("positive_replies_mtd") == MONTH_SO_FAR + 100_000
    assert max(numbers) < 100
    assert most < 40 * 1024**2
