"""`GET /freshness` of the gateway, which needs a database and no Dagster."""

import asyncio
import secrets
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import URL, Engine
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.checks.freshness import Deadlines
from kpi_pipeline.db.alert_evaluations import store_evaluation
from kpi_pipeline.db.alerts import FailingReceiver, store_failing
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.gateway.app import create_app
from kpi_pipeline.inbox.ingest import Inbox
from kpi_pipeline_tests.checks.support import (
    CHICAGO,
    ONE_DAY,
    TODAY,
    YESTERDAY,
    Stock,
    local,
)


def ask(
    engine: Engine,
    now: datetime,
    deadlines: Deadlines | None = None,
    evaluated_at: datetime | None = None,
) -> tuple[int, Any]:
    """The answer to a monitor at `now`; alerts were evaluated then, or at another time."""
    with suppress(DBAPIError), engine.begin() as connection:
        store_evaluation(connection, evaluated_at or now)
    inbox = Inbox(engine, CHICAGO, lambda: now, {})
    app = create_app(inbox, {"main": SecretStr(secrets.token_urlsafe(24))}, deadlines)

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.get("/freshness")

    answer = asyncio.run(get())
    return answer.status_code, answer.json()


@pytest.fixture
def stock(engine: Engine, vault: Vault) -> Stock:
    """Two clients, synced hour by hour up to the 18th, 14:30; one inactive."""
    stock = Stock(engine, vault)
    stock.clients("Acme", "Birch")
    stock.clients("Gone", active=False)
    for key in ("acme", "birch"):
        stock.rows(key, TODAY - 2 * ONE_DAY, as_of=local(TODAY, 0, 1))
        stock.rows(key, YESTERDAY, as_of=local(TODAY, 0, 5))
        stock.rows(key, TODAY, as_of=local(TODAY, 14, 30))
    return stock


def test_fresh_clients_are_answered_with_200_and_their_number(stock: Stock) -> None:
    assert ask(stock.engine, local(TODAY, 15)) == (
        200,
        {
            "status": "fresh",
            "fresh": 2,
            "clients": 2,
            "stale": [],
            "more": 0,
            "oldest_as_of": local(TODAY, 14, 30).isoformat(),
            "alerting": [],
        },
    )


def test_alerts_that_are_not_evaluated_or_not_accepted_are_503_without_the_receivers_name(
    stock: Stock,
) -> None:
    now = local(TODAY, 15)
    late = ask(stock.engine, now, evaluated_at=now - timedelta(minutes=11))
    refused = FailingReceiver("json://chat.example", 5, now - timedelta(minutes=30), now)
    with stock.engine.begin() as connection:
        store_failing(connection, refused)
    not_accepted = ask(stock.engine, now)

    for code, body in (late, not_accepted):
        assert (code, body["status"], body["fresh"]) == (503, "not alerting", 2)
        assert "chat.example" not in str(body)
    assert late[1]["alerting"] == ["not_evaluated"]
    assert not_accepted[1]["alerting"] == ["not_accepted"]


def test_after_dagster_stopped_freshness_turns_503_at_the_deadline(stock: Stock) -> None:
    assert ask(stock.engine, local(TODAY, 17, 30))[0] == 200
    code, body = ask(stock.engine, local(TODAY, 17, 31))
    assert code == 503
    assert (body["fresh"], body["clients"], body["stale"]) == (0, 2, ["acme", "birch"])

    daily = Deadlines(stale_after=timedelta(hours=26))
    assert ask(stock.engine, local(TODAY, 23), daily)[0] == 200


def test_one_stale_client_among_fresh_ones_is_named_by_its_workspace(stock: Stock) -> None:
    stock.rows("birch", TODAY, as_of=local(TODAY, 9))
    stock.rows("acme", TODAY, as_of=local(TODAY, 16))
    code, body = ask(stock.engine, local(TODAY, 16, 5))
    assert (code, body["fresh"], body["stale"]) == (503, 1, ["birch"])
    assert body["oldest_as_of"] == local(TODAY, 9).isoformat()


def test_yesterday_has_to_be_closed_by_six(stock: Stock) -> None:
    tomorrow = TODAY + timedelta(days=1)
    for key in ("acme", "birch"):
        stock.rows(key, TODAY, as_of=local(TODAY, 23, 58))
        stock.rows(key, tomorrow, as_of=local(tomorrow, 5, 30))
    stock.rows("acme", TODAY, as_of=local(tomorrow, 0))
    assert ask(stock.engine, local(tomorrow, 5, 59))[0] == 200
    code, body = ask(stock.engine, local(tomorrow, 6))
    assert (code, body["stale"]) == (503, ["birch"])
    assert ask(stock.engine, local(tomorrow, 6), Deadlines(fresh_by=time(7)))[0] == 200


def test_just_after_midnight_a_row_of_today_is_not_required(stock: Stock) -> None:
    for key in ("acme", "birch"):
        stock.rows(key, TODAY, as_of=local(TODAY, 23, 30))
    assert ask(stock.engine, local(TODAY + timedelta(days=1), 0, 1))[0] == 200


def test_the_day_of_23_hours_is_closed_at_its_own_midnight(stock: Stock) -> None:
    sunday, monday = date(2026, 3, 8), date(2026, 3, 9)
    stock.rows("birch", sunday, as_of=datetime(2026, 3, 9, 5, 0, tzinfo=UTC))
    stock.rows("acme", sunday, as_of=datetime(2026, 3, 9, 4, 59, tzinfo=UTC))
    for key in ("acme", "birch"):
        stock.rows(key, monday, as_of=local(monday, 6))
    assert ask(stock.engine, local(monday, 6, 30))[1]["stale"] == ["acme"]


def test_a_client_without_any_row_is_stale(stock: Stock) -> None:
    stock.clients("New")
    code, body = ask(stock.engine, local(TODAY, 15))
    assert (code, body["fresh"], body["clients"], body["stale"]) == (503, 2, 3, ["new"])


def test_an_unreachable_database_is_503_without_its_address(database: URL) -> None:
    away = open_engine(database.set(host="127.0.0.1", port=1, query={}))
    code, body = ask(away, local(TODAY, 15))
    assert (code, body["status"]) == (503, "unknown")
    assert database.database is not None
    assert database.database not in str(body)
