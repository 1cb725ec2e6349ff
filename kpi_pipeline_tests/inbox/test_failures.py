"""What can't be applied is kept with its reason, stops nothing else, and is applied later."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.db.coordination.locks import lock_client, lock_clients
from kpi_pipeline.db.events.inbox import NO_CLIENT, NOT_ACTIVE
from kpi_pipeline.db.events.overlay import pending_events
from kpi_pipeline.domain.events.event import EventStatus
from kpi_pipeline.inbox import ingest
from kpi_pipeline.inbox.apply import apply_pending
from kpi_pipeline.inbox.replay import match_and_date, replay
from kpi_pipeline_tests.cli.running import wait_until
from kpi_pipeline_tests.db.stocked import TODAY, imported, record
from kpi_pipeline_tests.domain.bodies import CHICAGO, email_sent, lead
from kpi_pipeline_tests.inbox.support import (
    FULL_DISK,
    LATER,
    SHUT_DOWN,
    TIMED_OUT,
    Clients,
    fail_first_write,
    fail_rows_above,
)

MONTH_SO_FAR = 3 * 18


@pytest.fixture
def stocked(clients: Clients) -> Clients:
    for workspace in ("harbor", "quay"):
        clients.stock(workspace, shown=[TODAY])
    return clients


@contextmanager
def held(engine: Engine, workspace: str) -> Iterator[None]:
    """Another session works on the client's rows."""
    with engine.begin() as connection:
        lock_client(connection, workspace)
        yield


def apply_all(clients: Clients, *workspaces: str) -> int:
    """Apply what waits, as a run does."""
    with clients.engine.begin() as connection:
        lock_clients(connection, workspaces)
        return len(apply_pending(connection, workspaces, CHICAGO, clients.at))


def due(clients: Clients) -> list[str]:
    """The clients whose events are to be tried now."""
    with clients.engine.connect() as connection:
        return [it.workspace for it in pending_events(connection, clients.at)]


def test_an_event_of_a_client_that_is_imported_later_counts_from_then_on(stocked: Clients) -> None:
    early, known = stocked.ingest(lead(1, 103, LATER), lead(1, 101, LATER))
    assert (early.status, early.reason) == (EventStatus.UNMATCHED, NO_CLIENT)
    assert known.status is EventStatus.APPLIED
    assert match_and_date(stocked.inbox()) == 0

    imported(stocked.engine, stocked.vault, record(103, "Newcomer"))
    stocked.stock("newcomer")
    assert match_and_date(stocked.inbox()) == 1
    assert due(stocked) == ["newcomer"]
    assert apply_all(stocked, "newcomer") == 1
    assert stocked.number("positive_replies_mtd", "newcomer") == MONTH_SO_FAR + 1
    # Delivered once more, it is known.
    stocked.ingest(lead(1, 103, LATER))
    assert stocked.number("positive_replies_mtd", "newcomer") == MONTH_SO_FAR + 1


def test_an_event_of_a_client_that_is_not_active_waits_until_it_is_again(stocked: Clients) -> None:
    stocked.sql("UPDATE clients SET active = false WHERE workspace = 'harbor'")
    before = stocked.rows()
    (receipt,) = stocked.ingest(lead(1, arrived_at=LATER))
    assert (receipt.status, receipt.reason) == (EventStatus.UNMATCHED, NOT_ACTIVE)
    assert match_and_date(stocked.inbox()) == 0
    assert stocked.rows() == before
    stocked.sql("UPDATE clients SET active = true WHERE workspace = 'harbor'")
    assert replay(stocked.inbox()).applied == 1
    assert stocked.number("positive_replies_mtd") == MONTH_SO_FAR + 1


def test_while_another_session_holds_the_rows_events_are_stored_and_applied_afterwards(
    stocked: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_WAIT_SECONDS", 0.05)
    before = stocked.rows()
    with held(stocked.engine, "harbor"):
        of_harbor, of_quay = stocked.ingest(lead(1, 101, LATER), lead(1, 102, LATER))
        assert of_harbor.status is EventStatus.RECEIVED
        assert of_quay.status is EventStatus.APPLIED, "one client never waits for another"
        stocked.ingest(lead(2, 102, LATER))
    assert stocked.events("status", "tries") == [("received", 0), ("applied", 0), ("applied", 0)]
    assert stocked.rows()["harbor", TODAY] == before["harbor", TODAY]
    assert due(stocked) == ["harbor"]
    assert apply_all(stocked, "harbor") == 1
    for workspace, leads in (("harbor", 1), ("quay", 2)):
        assert stocked.number("positive_replies_mtd", workspace) == MONTH_SO_FAR + leads


def test_files_and_commands_wait_until_a_busy_client_is_free(
    stocked: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_WAIT_SECONDS", 60.0)
    stocked.ingest(lead(1, 101, LATER))
    with ThreadPoolExecutor(1) as pool:
        with held(stocked.engine, "harbor"):
            events = lead(1, 101, LATER), lead(2, 101, LATER), lead(2, 102, LATER)
            waiting = pool.submit(stocked.ingest, *events)
            wait_until(lambda: len(stocked.events("id")) == 3, "the storing of the events")
            assert stocked.events("status") == ["applied", "received", "applied"]
            assert not waiting.done()
        receipts = waiting.result(60)
    assert [(it.status, it.is_new) for it in receipts] == [
        *((EventStatus.APPLIED, is_new) for is_new in (False, True, True))
    ]
    assert stocked.events("deliveries") == [2, 1, 1]
    assert stocked.number("positive_replies_mtd") == MONTH_SO_FAR + 2


def test_an_event_with_which_the_rows_fail_is_stored_with_the_reason_and_stops_no_other(
    stocked: Clients,
) -> None:
    fail_rows_above(stocked.engine, "harbor", leads=3)
    before = stocked.rows()
    bad, good = stocked.ingest(lead(1, 101, LATER), lead(1, 102, LATER))
    assert (bad.status, good.status) == (EventStatus.RECEIVED, EventStatus.APPLIED)
    assert stocked.rows()["harbor", TODAY] == before["harbor", TODAY]
    assert stocked.number("positive_replies_mtd", "quay") == MONTH_SO_FAR + 1
    [(status, tries, reason, next_try_at), _] = stocked.events(
        "status", "tries", "reason", "next_try_at"
    )
    assert (status, tries, next_try_at) == ("received", 1, LATER + timedelta(seconds=15))
    assert reason.startswith("Computing the rows of harbor failed (")
    assert "poisonous" not in reason, "what a database says may quote what nobody should read"


def test_many_webhooks_of_a_client_whose_rows_fail_are_one_try(stocked: Clients) -> None:
    fail_rows_above(stocked.engine, "harbor", leads=3)
    for number in range(1, 9):
        stocked.ingest(lead(number, arrived_at=LATER))
    stored = stocked.events("status", "tries")
    assert stored == [("received", 1), *[("received", 0)] * 7]
    stocked.sql("DROP TRIGGER failing ON client_metrics")
    stocked.at = LATER + timedelta(seconds=15)
    assert due(stocked) == ["harbor"]
    apply_all(stocked, "harbor")
    assert stocked.number("positive_replies_mtd") == MONTH_SO_FAR + 8


def test_waits_between_tries_grow_and_after_the_fifth_the_event_is_set_aside(
    stocked: Clients,
) -> None:
    fail_rows_above(stocked.engine, "harbor", leads=3)
    (poison,) = stocked.ingest(lead(1, arrived_at=LATER))
    waits = []
    for tries in (1, 2, 3, 4):
        assert due(stocked) == []
        [(status, counted, next_try_at)] = stocked.events("status", "tries", "next_try_at")
        assert (status, counted) == ("received", tries)
        waits.append((next_try_at - stocked.at).total_seconds())
        stocked.at = next_try_at
        assert due(stocked) == ["harbor"]
        apply_all(stocked, "harbor")
    assert waits == [15, 60, 300, 900]
    assert stocked.events("status", "tries") == [("set_aside", 5)]
    assert due(stocked) == []

    # Without it, the client's numbers recover, and what comes in later counts.
    stocked.ingest(email_sent(1, LATER, stocked.at))
    row = stocked.rows()["harbor", TODAY]
    assert (row["emails_sent_today"], row["positive_replies_mtd"]) == (101, MONTH_SO_FAR)

    # And once the cause is mended, a replay counts it.
    stocked.sql("DROP TRIGGER failing ON client_metrics")
    assert replay(stocked.inbox(), statuses=[EventStatus.SET_ASIDE]).applied == 1
    assert stocked.events("id", "status", "tries", "reason")[0] == (
        *(poison.event_id, "applied", 0, None),
    )
    assert stocked.number("positive_replies_mtd") == MONTH_SO_FAR + 1


@pytest.mark.parametrize(
    "problem",
    [FULL_DISK, SHUT_DOWN, TIMED_OUT],
    ids=["full disk", "shut down", "timed out"],
)
def test_a_full_disk_or_a_lost_server_counts_as_no_try_of_an_event(
    stocked: Clients, problem: str
) -> None:
    stocked.ingest(lead(1, arrived_at=LATER), realtime=False)
    fail_first_write(stocked.engine, "harbor", problem)

    with pytest.raises(DBAPIError):
        apply_all(stocked, "harbor")

    assert stocked.events("status", "tries", "reason") == [("received", 0, None)]
    assert due(stocked) == ["harbor"]
    assert apply_all(stocked, "harbor") == 1
    assert stocked.number("positive_replies_mtd") == MONTH_SO_FAR + 1


def test_nothing_stays_in_processing_when_the_ingesting_process_dies(
    stocked: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> set[int]:
        raise KeyboardInterrupt

    before = stocked.rows()
    monkeypatch.setattr(ingest, "apply_or_fail", die)
    with pytest.raises(KeyboardInterrupt):
        stocked.ingest(lead(1, arrived_at=LATER))
    monkeypatch.undo()
    # It was not confirmed: nothing of it is stored, and the sender sends it again.
    assert (stocked.events("id"), stocked.rows()) == ([], before)
    # And what was stored waits, claimed by nobody.
    stocked.ingest(lead(1, arrived_at=LATER), realtime=False)
    assert due(stocked) == ["harbor"]
    assert apply_all(stocked, "harbor") == 1
    assert stocked.number("positive_replies_mtd") == MONTH_SO_FAR + 1


def test_an_event_of_a_day_that_has_not_begun_is_in_its_row_as_soon_as_there_is_one(
    stocked: Clients,
) -> None:
    before = stocked.rows()
    arrived_at = LATER + timedelta(hours=12)
    tomorrow = TODAY + timedelta(days=1)
    stocked.ingest(lead(1, arrived_at=arrived_at))
    assert stocked.rows() == before
    stocked.stock(
        first=tomorrow, last=tomorrow, as_of=arrived_at - timedelta(hours=1), shown=[tomorrow]
    )
    row = stocked.rows()["harbor", tomorrow]
    assert (row["positive_replies_today"], row["positive_replies_mtd"]) == (4, MONTH_SO_FAR + 4)
