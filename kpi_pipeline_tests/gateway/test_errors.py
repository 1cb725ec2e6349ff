"""Errors inside the gateway: events are kept, and nothing leaks to callers or logs."""

from collections.abc import Iterator
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import URL, text

from kpi_pipeline.db.day_zone import store_day_zone
from kpi_pipeline.gateway import app
from kpi_pipeline_tests.gateway.support import FIRST_ID, Gateway, encoded, in_thread, lead
from kpi_pipeline_tests.inbox.support import FULL_DISK, fail_writes


@pytest.fixture
def gateway(database: URL) -> Iterator[Gateway]:
    with in_thread(database) as gateway:
        yield gateway


def stored(gateway: Gateway) -> list[tuple[bytes, str]]:
    """Body and status of each event, in the order of arrival."""
    rows = gateway.rows("SELECT body, status FROM webhook_events ORDER BY id")
    return [(bytes(row["body"]), row["status"]) for row in rows]


def test_an_event_whose_numbers_cannot_be_computed_is_stored_and_acknowledged(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    fail_writes(gateway.engine, "client-0", "true", FULL_DISK)
    body = encoded(lead())

    answer = gateway.post(body)

    assert (answer.status_code, answer.json()["status"]) == (200, "received")
    assert stored(gateway) == [(body, "received")]
    assert "left to Dagster's sensor" in caplog.text
    with gateway.engine.begin() as connection:
        connection.execute(text("DROP TRIGGER failing ON client_metrics"))
    # The next event of the client brings it along.
    assert gateway.post(encoded(lead())).json()["status"] == "applied"
    assert [status for _, status in stored(gateway)] == ["applied", "applied"]


def test_an_internal_error_is_one_sentence_for_the_sender_and_details_for_the_log(
    gateway: Gateway, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a slip of the pen")

    monkeypatch.setattr(app, "ingest", fail)
    monkeypatch.setattr(app, "ingest_without_waiting", fail)
    body = encoded(lead())
    answer = gateway.post(body)
    assert answer.status_code == 500
    assert answer.json() == {
        "error": "The event could not be stored; the log of the gateway says why."
    }
    assert "RuntimeError: a slip of the pen" in caplog.text
    assert gateway.secrets["main"] not in caplog.text
    assert body.decode() not in caplog.text
    # And then it goes on.
    monkeypatch.undo()
    assert gateway.post(body).json()["status"] == "applied"


def test_while_realtime_is_off_events_are_stored_and_left_to_the_sensor(database: URL) -> None:
    body = encoded(lead())
    with in_thread(database, realtime=False) as gateway:
        answer = gateway.post(body)
        assert (answer.status_code, answer.json()["status"]) == (200, "received")
        assert stored(gateway) == [(body, "received")]


def test_readyz_reveals_nothing_of_the_database_server(gateway: Gateway) -> None:
    with gateway.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    behind = gateway.http.get("/readyz")
    assert behind.status_code == 503
    assert "Run `kpi db upgrade`" in behind.json()["error"]
    with gateway.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'from the future'"))
    ahead = gateway.http.get("/readyz")
    assert ahead.status_code == 503
    assert str(gateway.engine.url.database) not in behind.text + ahead.text
    assert gateway.http.get("/healthz").status_code == 200


@pytest.mark.parametrize("workspace_id", [FIRST_ID, 999])
def test_a_gateway_of_before_a_change_of_zone_stores_no_event_and_is_not_ready(
    gateway: Gateway, workspace_id: int
) -> None:
    """It would date events by the old zone. The sender repeats them."""
    with gateway.engine.begin() as connection:
        store_day_zone(connection, ZoneInfo("Pacific/Kiritimati"))
    answer = gateway.post(lead(workspace_id))
    assert answer.status_code == 503
    assert "must be restarted" in answer.json()["error"]
    assert gateway.count() == 0
    ready = gateway.http.get("/readyz")
    assert ready.status_code == 503
    assert "Start it again" in ready.json()["error"]
