"""How many statements work takes: each costs about as much as all rows in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import Engine, event

from kpi_pipeline.app import AppContext
from kpi_pipeline.db.facts import SendingPlan
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.domain.calendar import days_between, fetch_period
from kpi_pipeline.settings import Settings
from kpi_pipeline.sync.fetch import FetchedFacts
from kpi_pipeline.sync.store import store_client
from kpi_pipeline_tests.db.stocked import AS_OF, CHICAGO, TODAY, day, imported, record
from kpi_pipeline_tests.domain.bodies import lead
from kpi_pipeline_tests.inbox.support import LATER, Clients


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """The statements of the block; one with many sets of values counts for each of them."""
    found: list[str] = []

    def note(_: object, __: object, sql: str, values: object, *more: object) -> None:
        found.extend([sql] * (len(values) if isinstance(values, list) else 1))

    event.listen(engine, "before_cursor_execute", note)
    yield found
    event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize("dates", [1, 8, 365])
def test_a_clients_facts_and_rows_take_eleven_statements_however_many_dates(
    engine: Engine, vault: Vault, dates: int
) -> None:
    imported(engine, vault, record(101, "Harbor"))
    app = AppContext(Settings(bison_timezone=CHICAGO), engine, vault, lambda: LATER)
    shown = days_between(TODAY - timedelta(days=dates - 1), TODAY)
    days = days_between(*fetch_period(shown[0], shown[-1]))
    facts = FetchedFacts(AS_OF, {it: day() for it in days}, [], SendingPlan(TODAY, 1, 2, AS_OF))
    with statements(engine) as executed:
        numbers = store_client(app, "harbor", shown, facts)
    assert list(numbers) == shown
    assert len(executed) <= 11, executed


@pytest.mark.parametrize("events", [1, 50])
def test_a_batch_of_events_takes_nine_statements_however_many_events_and_clients(
    engine: Engine, vault: Vault, events: int
) -> None:
    ids = range(101, 111)
    names = imported(engine, vault, *(record(it, f"Client {it}") for it in ids))
    clients = Clients(engine, vault)
    for name in names:
        clients.stock(name, shown=[TODAY - timedelta(days=1), TODAY])
    with statements(engine) as executed:
        clients.ingest(*(lead(it, ids[it % 10], LATER) for it in range(1, events + 1)))
    assert set(clients.events("status")) == {"applied"}
    assert len(executed) <= 9, executed
