"""The pings of the external dead-man's switches: one meaning for each, and no flapping."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from dagster import DagsterRun
from sqlalchemy import Engine

from kpi_pipeline.db.alert_evaluations import store_evaluation
from kpi_pipeline.db.alerts import FailingReceiver, forget_failing, store_failing
from kpi_pipeline.db.registry.vault import Vault
from kpi_pipeline.definitions import build_definitions
from kpi_pipeline.orchestration.automation.heartbeats import ping_switches
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver
from kpi_pipeline_tests.orchestration.installation import temporary_instance
from kpi_pipeline_tests.orchestration.nights import CLIENTS, LAST, TICK, Nights

MINUTE = timedelta(minutes=1)


class Watched(Nights):
    """Nights and rounds of checks that two switches watch."""

    receiver: Receiver
    cursor: str | None = None

    def pings(self, **passed: float) -> list[str]:
        """The pings of an evaluation, so much time after now, without the ids of runs."""
        self.passed = timedelta(**passed)
        before = len(self.receiver.received)
        self.cursor = ping_switches(self.instance, self.app, self.cursor)
        return [it.path.partition("?")[0] for it in self.receiver.received[before:]]

    def night(self, *failed: str, tick: datetime = TICK) -> DagsterRun:
        """The night's run over all clients has ended, in which these failed."""
        self.begin(tick)
        run = self.run(tick=tick)
        self.end_of_tick()
        self.sync(*(it for it in CLIENTS if it not in failed))
        self.sync(*failed, error="401")
        self.end(run, good=not failed)
        return run

    def evaluate_alerts(self) -> None:
        with self.engine.begin() as connection:
            store_evaluation(connection, self.now)


@pytest.fixture
def watched(engine: Engine, vault: Vault, receiver: Receiver) -> Iterator[Watched]:
    urls = {"heartbeat_url": "/night", "heartbeat_url_checks": "/checks"}
    with temporary_instance() as instance:
        found = Watched(
            instance, engine, vault, **{name: receiver.url + it for name, it in urls.items()}
        )
        found.receiver = receiver
        yield found


def test_a_night_starts_with_its_tick_and_succeeds_when_all_its_clients_are_in(
    watched: Watched,
) -> None:
    assert watched.pings() == []
    watched.begin()
    assert watched.pings() == ["/night/start"]
    one, two = watched.run(CLIENTS[:2]), watched.run(CLIENTS[2:])
    watched.end_of_tick()
    watched.sync(*CLIENTS[:2])
    watched.end(one)
    assert watched.pings() == [], "a part of the night is not the night"
    watched.sync(CLIENTS[2])
    watched.end(two)
    assert watched.pings() == ["/night"]
    assert watched.pings(minutes=9) == []
    start, end = (it.path.partition("rid=")[2] for it in watched.receiver.received)
    assert start == end
    assert len(start) == 36, "a UUID"


def test_the_revoked_key_of_one_client_is_one_failure_that_no_refresh_or_check_takes_back(
    watched: Watched,
) -> None:
    assert watched.night("birch") is not None
    assert watched.pings(minutes=1) == ["/night/start"], "a retry may follow"
    assert watched.pings(minutes=3) == ["/night/fail"]
    for hour in range(1, 5):
        watched.passed = timedelta(hours=hour)
        watched.evaluate_alerts()
        # The refresh of each hour fetches yesterday and today, and checks follow.
        watched.sync("acme", "cedar", first=LAST - timedelta(days=1))
        watched.sync("birch", error="401", first=LAST - timedelta(days=1))
        assert watched.pings(hours=hour) == []
    watched.sync("birch", first=LAST - timedelta(days=1))
    assert watched.pings(hours=6) == [], "six days of the night are missing"

    watched.sync("birch")
    assert watched.pings(hours=7) == ["/night"], "a person has synced what was left"
    assert watched.pings(hours=8) == []


def test_a_client_that_its_retry_brings_in_is_no_failure(watched: Watched) -> None:
    run = watched.night("birch")
    retry = watched.retry(run, "birch")
    watched.start(retry)
    assert watched.pings(minutes=5) == ["/night/start"]
    watched.sync("birch")
    watched.end(retry)
    assert watched.pings(minutes=5) == ["/night"]


def test_a_client_that_was_deactivated_meanwhile_is_not_missed(watched: Watched) -> None:
    watched.night("birch")
    with watched.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE clients SET active = false WHERE workspace = 'birch'")
    assert watched.pings() == ["/night"]


def test_a_tick_that_failed_is_a_failure_also_where_clients_are_fresh(watched: Watched) -> None:
    watched.sync(*CLIENTS)
    watched.begin()
    watched.end_of_tick(good=False)
    assert watched.pings() == ["/night/fail"]


def test_the_next_night_is_judged_on_its_own(watched: Watched) -> None:
    watched.night("birch", tick=TICK - timedelta(days=1))
    assert watched.pings(minutes=5) == ["/night/fail"]
    watched.night()
    assert watched.pings() == ["/night"]


def test_a_ping_that_the_switch_did_not_accept_is_sent_again(watched: Watched) -> None:
    watched.receiver.answer = lambda path, before: 200 if before else 503
    watched.night()
    assert watched.pings() == ["/night"]
    assert watched.pings() == ["/night"]
    assert watched.pings() == []


def test_a_round_of_checks_succeeds_while_alerts_go_out_and_no_other_run_counts(
    watched: Watched,
) -> None:
    watched.evaluate_alerts()
    for schedule in ("daily_totals_check", "intraday_refresh", "retry_unanswered_checks"):
        watched.checks(schedule=schedule)
    assert watched.pings() == []
    run = watched.checks()
    assert watched.pings() == ["/checks"]
    assert watched.receiver.received[-1].path == f"/checks?rid={run.run_id}"
    assert watched.pings() == [], "once for each round"
    watched.checks(good=False)
    assert watched.pings() == ["/checks/fail"]
    assert watched.pings() == []


def test_no_round_succeeds_while_alerts_are_not_evaluated(watched: Watched) -> None:
    watched.passed = timedelta(minutes=-60)
    watched.evaluate_alerts()
    watched.checks()
    assert watched.pings(minutes=1) == [], "Dagster may just have been started"
    assert watched.pings(minutes=3) == ["/checks/fail"]
    assert watched.pings(minutes=4) == []
    watched.evaluate_alerts()
    assert watched.pings(minutes=5) == ["/checks"]


def test_no_round_succeeds_while_a_receiver_refuses_everything(watched: Watched) -> None:
    watched.evaluate_alerts()
    failing = FailingReceiver("json://chat", 9, watched.now - 30 * MINUTE, watched.now)
    with watched.engine.begin() as connection:
        store_failing(connection, failing)
    watched.checks()
    assert watched.pings(minutes=3) == ["/checks/fail"]
    with watched.engine.begin() as connection:
        forget_failing(connection, failing.receiver)
    assert watched.pings(minutes=4) == ["/checks"]


def test_a_round_that_ended_long_ago_says_nothing_of_now(watched: Watched) -> None:
    watched.checks()
    watched.passed = timedelta(minutes=16)
    watched.evaluate_alerts()
    assert watched.pings(minutes=16) == []


def test_the_sensor_exists_where_a_switch_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def sensors() -> set[str]:
        return {it.name for it in build_definitions(load_settings()).sensors or ()}

    assert "heartbeats" not in sensors()
    monkeypatch.setenv("KPI_HEARTBEAT_URL_CHECKS", "https://watch.example/abc")
    assert "heartbeats" in sensors()
