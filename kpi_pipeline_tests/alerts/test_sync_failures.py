"""Clients whose sync fails, read from `sync_log`."""

from datetime import timedelta

from sqlalchemy import text

from kpi_pipeline.db.sync_log import SyncFailure, sync_failures
from kpi_pipeline_tests.alerts.support import START, Office


def failing(office: Office) -> dict[str, SyncFailure]:
    with office.engine.connect() as connection:
        return {it.workspace: it for it in sync_failures(connection)}


def at(office: Office, hours: float) -> Office:
    office.passed = timedelta(hours=hours)
    return office


def test_a_client_fails_since_its_first_failure_after_a_success(office: Office) -> None:
    at(office, 0).sync("acme", "acme: an old one")
    at(office, 1).sync("acme")
    at(office, 2).sync("acme", "acme: the first")
    at(office, 3).sync("acme", "acme: the last")
    at(office, 3).sync("birch")
    found = failing(office)
    assert set(found) == {"acme"}
    assert found["acme"].since == START + timedelta(hours=2)
    assert found["acme"].failed_at == START + timedelta(hours=3)
    assert found["acme"].error == "acme: the last"


def test_a_later_successful_run_ends_the_failure(office: Office) -> None:
    at(office, 0).sync("acme", "acme: failed")
    at(office, 1).sync("acme")
    assert failing(office) == {}


def test_a_run_without_calls_does_not_end_a_failure_of_a_call(office: Office) -> None:
    at(office, 0).sync("acme", "acme: answered 503")
    at(office, 1).sync("acme", calls=0)
    assert set(failing(office)) == {"acme"}
    at(office, 2).sync("birch", "birch: computing its rows failed", calls=0)
    at(office, 3).sync("birch", calls=0)
    assert set(failing(office)) == {"acme"}


def test_an_inactive_client_does_not_fail(office: Office) -> None:
    at(office, 0).sync("acme", "acme: failed")
    with office.engine.begin() as connection:
        connection.execute(text("UPDATE clients SET active = false"))
    assert failing(office) == {}
