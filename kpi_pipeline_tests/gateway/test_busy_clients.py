"""A client that other work is busy with delays no other; its events are applied once it is free."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import URL, Engine, text

from kpi_pipeline.db.coordination.locks import lock_client
from kpi_pipeline.gateway import busy_clients
from kpi_pipeline_tests.cli.running import wait_until
from kpi_pipeline_tests.gateway.support import FIRST_ID, WORKSPACES, Gateway, in_thread, lead

BUSY, *OTHERS = WORKSPACES


@pytest.fixture
def gateway(database: URL) -> Iterator[Gateway]:
    with in_thread(database) as gateway:
        yield gateway


@contextmanager
def busy(gateway: Gateway, statement: str | None = None) -> Iterator[None]:
    """Another session works on the first client, as a sync does, or with that statement."""
    with gateway.engine.begin() as connection:
        if statement is None:
            lock_client(connection, BUSY)
        else:
            connection.execute(text(statement), {"workspace": BUSY})
        yield


def post_all(gateway: Gateway, events: Sequence[dict[str, Any]]) -> list[httpx.Response]:
    """Send these events at once."""
    with ThreadPoolExecutor(len(events)) as pool:
        return list(pool.map(gateway.post, events))


def statuses(gateway: Gateway, workspace: str) -> list[str]:
    rows = gateway.rows(
        "SELECT status FROM webhook_events WHERE workspace = :workspace ORDER BY id",
        workspace=workspace,
    )
    return [row["status"] for row in rows]


def deliveries(gateway: Gateway) -> list[int]:
    rows = gateway.rows("SELECT deliveries FROM webhook_events ORDER BY id")
    return [row["deliveries"] for row in rows]


def leads_today(gateway: Gateway, workspace: str) -> list[int]:
    rows = gateway.rows(
        "SELECT positive_replies_today AS n FROM client_metrics WHERE workspace = :workspace",
        workspace=workspace,
    )
    return [row["n"] for row in rows]


def test_while_a_client_is_busy_all_are_answered_and_the_others_are_applied(
    gateway: Gateway,
) -> None:
    leads = [lead(FIRST_ID + number) for number in range(len(WORKSPACES))] * 3
    with busy(gateway):
        answers = post_all(gateway, leads)
        assert {it.status_code for it in answers} == {200}
        assert [statuses(gateway, it) for it in OTHERS] == [["applied"]] * len(OTHERS)
        assert [leads_today(gateway, it) for it in OTHERS] == [[1]] * len(OTHERS)
        assert statuses(gateway, BUSY) == ["received"]
        assert leads_today(gateway, BUSY) == []


def test_what_came_while_a_client_was_busy_shows_as_soon_as_it_is_free(gateway: Gateway) -> None:
    event = lead()
    with busy(gateway):
        assert gateway.post(event).json()["status"] == "received"
        assert gateway.post(event).json()["new"] is False
        assert gateway.post(lead()).json()["status"] == "received"

    wait_until(lambda: leads_today(gateway, BUSY) == [2], "the row of the client", seconds=10)
    assert statuses(gateway, BUSY) == ["applied", "applied"]
    wait_until(lambda: deliveries(gateway) == [2, 1], "the count of deliveries", seconds=10)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM client_metrics WHERE workspace = :workspace FOR UPDATE",
        "SELECT * FROM webhook_events WHERE workspace = :workspace FOR UPDATE",
        "UPDATE webhook_events SET tries = 0 WHERE workspace = :workspace",
    ],
    ids=["its row", "its events", "its changed events"],
)
def test_rows_that_somebody_locked_by_hand_delay_no_other_client(
    gateway: Gateway, statement: str
) -> None:
    event = lead()
    assert gateway.post(event).json()["status"] == "applied"
    with busy(gateway, statement):
        answers = post_all(gateway, [event, lead(), *(lead(FIRST_ID + 1) for _ in range(5))])
        assert {it.status_code for it in answers} == {200}
        # Those that shared a transaction with the client are applied a moment later.
        wait_until(lambda: leads_today(gateway, OTHERS[0]) == [5], "the other client", seconds=10)
    wait_until(lambda: leads_today(gateway, BUSY) == [2], "the row of the client", seconds=10)
    assert set(statuses(gateway, BUSY)) == {"applied"}


def test_several_busy_clients_do_not_wait_for_each_other(gateway: Gateway) -> None:
    with busy(gateway):
        with gateway.engine.begin() as connection:
            lock_client(connection, OTHERS[0])
            post_all(gateway, [lead(FIRST_ID + number) for number in range(3)])
            assert statuses(gateway, OTHERS[0]) == ["received"]
        wait_until(lambda: leads_today(gateway, OTHERS[0]) == [1], "the free client", seconds=10)
        assert leads_today(gateway, BUSY) == []


def test_a_client_that_stays_busy_is_left_to_the_sensor(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(busy_clients, "GIVE_UP_SECONDS", 0.2)
    with busy(gateway):
        assert gateway.post(lead()).json()["status"] == "received"
        wait_until(lambda: "left to Dagster's sensor" in caplog.text, "the end of the tries")
        assert f"Events of {BUSY} are left" in caplog.text
    assert statuses(gateway, BUSY) == ["received"]
    # The next event of the client brings it along.
    assert gateway.post(lead()).json()["status"] == "applied"
    assert statuses(gateway, BUSY) == ["applied", "applied"]


def test_a_gateway_stops_while_a_client_is_busy(database: URL, engine: Engine) -> None:
    with ExitStack() as stack:
        gateway = stack.enter_context(in_thread(database))
        with engine.begin() as connection:
            lock_client(connection, BUSY)
            assert gateway.post(lead()).json()["status"] == "received"
            stack.close()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT status FROM webhook_events")) == "received"
