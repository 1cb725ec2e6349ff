"""Changes of the tables, by notifications or by a poll: both say the same of them."""

import logging
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, event, text

from kpi_pipeline.db.dashboard import changes
from kpi_pipeline.db.dashboard.changes import EVERYTHING, Change, ChangeFeed, Subject
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline_tests.cli.running import wait_until
from kpi_pipeline_tests.dashboard.rows import put_clients, put_rows

DEADLINE_SECONDS = 30.0


class Seen:
    """The changes that a feed reports."""

    def __init__(self) -> None:
        self._changes: queue.Queue[Change] = queue.Queue()

    def __call__(self, change: Change) -> None:
        self._changes.put(change)

    def next(self) -> Change:
        return self._changes.get(timeout=DEADLINE_SECONDS)


@contextmanager
def feeding(engine: Engine) -> Iterator[Seen]:
    seen = Seen()
    feed = ChangeFeed(engine, seen)
    feed.start()
    try:
        assert seen.next() == EVERYTHING
        yield seen
    finally:
        feed.stop()


@pytest.fixture
def stocked(engine: Engine) -> Engine:
    put_clients(engine, "acme", "beta")
    put_rows(engine, "acme")
    put_rows(engine, "beta")
    return engine


@pytest.fixture(params=["notifications", "poll"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """How changes become known: a pooler in transaction mode leaves the poll."""
    if request.param == "poll":
        monkeypatch.setattr(changes, "TEST_SECONDS", 0.2)
        monkeypatch.setattr(changes, "POLL_SECONDS", 0.05)
        with swallowing_notifications():
            yield request.param
    else:
        yield request.param


@contextmanager
def swallowing_notifications() -> Iterator[None]:
    """As behind such a pooler: LISTEN succeeds, on a connection that others use next."""

    def swallow(
        _: Any, __: Any, statement: str, parameters: Any, ___: Any, ____: bool
    ) -> tuple[str, Any]:
        return statement.replace("LISTEN kpi_changes", "SELECT 1"), parameters

    event.listen(Engine, "before_cursor_execute", swallow, retval=True)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", swallow)


def execute(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize(
    ("statement", "change"),
    [
        (
            "UPDATE client_metrics SET emails_sent_mtd = 7 WHERE workspace = 'acme'",
            Change(Subject.ROWS, "acme"),
        ),
        ("DELETE FROM client_metrics WHERE workspace = 'beta'", Change(Subject.ROWS, "beta")),
        ("UPDATE clients SET display_name = 'Acme Ltd'", Change(Subject.CLIENTS)),
        (
            "INSERT INTO action_requests (kind, workspaces, first_date, last_date, requested_by, "
            "requested_at) VALUES ('refresh', '{acme}', '2026-03-18', '2026-03-18', 'ann', now())",
            Change(Subject.REQUESTS),
        ),
    ],
    ids=["a changed row", "a deleted row", "a client", "a request"],
)
def test_a_change_is_reported_with_its_client(
    stocked: Engine, way: str, statement: str, change: Change
) -> None:
    with feeding(stocked) as seen:
        execute(stocked, statement)
        assert seen.next() == change


def test_a_transaction_that_began_long_before_it_committed_is_not_missed(
    stocked: Engine, way: str
) -> None:
    with feeding(stocked) as seen, stocked.connect() as slow:
        slow.execute(text("UPDATE client_metrics SET emails_sent_mtd = 1 WHERE workspace = 'acme'"))
        execute(stocked, "UPDATE client_metrics SET emails_sent_mtd = 2 WHERE workspace = 'beta'")
        assert seen.next() == Change(Subject.ROWS, "beta")
        slow.commit()
        assert seen.next() == Change(Subject.ROWS, "acme")


def test_what_is_rolled_back_is_no_change(stocked: Engine, way: str) -> None:
    with feeding(stocked) as seen:
        with stocked.connect() as connection:
            connection.execute(text("UPDATE client_metrics SET emails_sent_mtd = 1"))
            connection.rollback()
        execute(stocked, "UPDATE clients SET display_name = 'Beta'")
        assert seen.next() == Change(Subject.CLIENTS)


def test_after_its_connections_were_ended_the_feed_goes_on(stocked: Engine, way: str) -> None:
    watching = open_engine(stocked.url)
    with feeding(watching) as seen:
        execute(
            stocked,
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        if way == "notifications":
            # Anything may have changed before it listened again.
            assert seen.next() == EVERYTHING
        execute(stocked, "UPDATE clients SET display_name = 'Beta'")
        assert seen.next() == Change(Subject.CLIENTS)
    watching.dispose()


def test_a_pooler_that_lets_nobody_listen_is_logged(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(changes, "TEST_SECONDS", 0.2)
    monkeypatch.setattr(changes, "POLL_SECONDS", 0.05)
    with swallowing_notifications(), caplog.at_level(logging.WARNING), feeding(stocked):
        pass
    assert "a pooler is in transaction mode" in caplog.text


def test_listening_is_tried_again_after_a_while(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "TEST_SECONDS", 0.2)
    monkeypatch.setattr(changes, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(changes, "_POLL_FOR_SECONDS", 0.3)
    seen = Seen()
    feed = ChangeFeed(stocked, seen)
    with swallowing_notifications():
        feed.start()
        assert seen.next() == EVERYTHING
    try:
        # The second time it is LISTEN that begins with everything.
        assert seen.next() == EVERYTHING
    finally:
        feed.stop()


def test_a_stopped_feed_leaves_no_thread_and_no_connection(stocked: Engine, way: str) -> None:
    with feeding(stocked):
        assert any(it.name == "changes" for it in threading.enumerate())
        stopped = time.monotonic()
    assert time.monotonic() - stopped < 3
    assert not any(it.name == "changes" for it in threading.enumerate())

    def connections() -> int:
        statement = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kpi_live'"
        with stocked.connect() as connection:
            return int(connection.scalar(text(statement)) or 0)

    wait_until(lambda: connections() == 0, "the end of the connection")
