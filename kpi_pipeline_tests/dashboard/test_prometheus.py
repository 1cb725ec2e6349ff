"""GET /metrics, read by prometheus-client's own parser."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from pydantic import SecretStr
from sqlalchemy import URL, Engine, event, insert, text

from kpi_pipeline.checks.freshness import Deadlines, freshness_statuses
from kpi_pipeline.dashboard.app import create_app
from kpi_pipeline.dashboard.prometheus import client_families, exposition
from kpi_pipeline.dashboard.site import Site
from kpi_pipeline.db import web
from kpi_pipeline.db.alert_evaluations import store_evaluation
from kpi_pipeline.db.alerts import FailingReceiver, mute, store_failing
from kpi_pipeline.db.dagster_tables import DAEMON_CLAIM_KEY
from kpi_pipeline.db.monitoring import ClientActivity, client_activity
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.db.sync_log import SyncEntry, store_entry
from kpi_pipeline.db.tables import alert_state, webhook_events
from kpi_pipeline.parts import Parts, PartState, PartStatus, write_parts
from kpi_pipeline.web.passwords import new_api_token, token_hash
from kpi_pipeline_tests import PROJECT_ROOT
from kpi_pipeline_tests.conftest import NOW
from kpi_pipeline_tests.dashboard.browsing import browsing
from kpi_pipeline_tests.dashboard.rows import (
    CHICAGO,
    ONE_DAY,
    TODAY,
    put_clients,
    put_outcome,
    put_rows,
)
from kpi_pipeline_tests.web.support import put_user

FROM_OUTSIDE = 'a "cause" with \\ and\na second line'
UNITS = ("_seconds", "_total", "_info", "_up")
# Counts and levels, which have no unit.
UNITLESS = {
    "kpi_clients", "kpi_client_sync_calls", "kpi_client_sync_failing", "kpi_sync_calls",
    "kpi_sync_clients", "kpi_events_last_hour", "kpi_events_uncounted", "kpi_queue_length",
    "kpi_check_severity", "kpi_alert_severity", "kpi_alerts", "kpi_alert_mutes",
    "kpi_dagster_runs", "kpi_part_running",
}  # fmt: skip


def entry(workspace: str, minutes_ago: float, **changed: Any) -> SyncEntry:
    of = {
        "run_id": f"run {minutes_ago}",
        "error": None,
        "key_used": "workspace",
        "api_calls": 3,
        "seconds": 2.5,
        **changed,
    }
    return SyncEntry(
        workspace=workspace,
        first_date=TODAY,
        last_date=TODAY,
        waiting_seconds=0.0,
        calling_seconds=1.0,
        finished_at=NOW - timedelta(minutes=minutes_ago),
        **of,
    )


def put_event(engine: Engine, number: int, hours_ago: float, **changed: Any) -> None:
    with engine.begin() as connection:
        row = {
            "instance": "main",
            "source": "webhook",
            "arrived_at": NOW - timedelta(hours=hours_ago),
            "idempotency_key": f"event {number}",
            "workspace": "harbor",
            "metric": "interested",
            "status": "applied",
            **changed,
        }
        connection.execute(insert(webhook_events), row)


@pytest.fixture
def stocked(engine: Engine, dagster_database: URL, dashboard_site: Site, tmp_path: Path) -> Site:
    """An installation with something to say in each metric."""
    put_clients(engine, "harbor", "quay", "sloop")
    put_rows(engine, "harbor", as_of=NOW - timedelta(minutes=10))
    put_rows(engine, "quay", [TODAY - ONE_DAY])
    for hours_ago in reversed(range(200)):
        put_event(engine, hours_ago, hours_ago)
    put_event(engine, 300, 0.5, source="feed")
    put_event(engine, 301, 0.4, status="received")
    put_event(engine, 302, 20, status="invalid", workspace=None, metric=None)
    put_outcome(engine, "complete", [{"workspace": "quay"}], severity="ERROR")
    put_outcome(engine, "plausible", [], since=None)
    with engine.begin() as connection:
        store_entry(connection, entry("harbor", 30, run_id="run"))
        store_entry(connection, entry("quay", 29, run_id="run", error="quay: 401"))
        store_entry(connection, entry("sloop", 60))
        store_entry(connection, entry("sloop", 1, api_calls=0))
        store_evaluation(connection, NOW - timedelta(seconds=20))
        mute(connection, "harbor", NOW + ONE_DAY, NOW)
        store_failing(connection, FailingReceiver("slack of ops", 3, NOW - ONE_DAY, NOW))
        columns: dict[str, Any] = {
            "cause": FROM_OUTSIDE, "title": "", "severity": "ERROR", "names": [], "clients": [],
            "since": NOW, "tell_from": NOW, "told": {},
        }  # fmt: skip
        connection.execute(insert(alert_state), columns)
    put_dagster(dagster_database)
    address = dagster_database.render_as_string(hide_password=False)
    process = psutil.Process()
    parts = [PartState("gateway", "The gateway", PartStatus.RUNNING, NOW, restarts=2)]
    write_parts(tmp_path, Parts("kpi up", os.getpid(), process.create_time(), parts))
    changed = {"state_dir": tmp_path, "dagster_database_url": SecretStr(address)}
    return replace(dashboard_site, settings=dashboard_site.settings.model_copy(update=changed))


def put_dagster(database: URL) -> None:
    """The claim of a daemon of five seconds ago."""
    engine = open_engine(database)
    with engine.begin() as connection:
        statement = text(
            "INSERT INTO kvs (key, value) VALUES (:key, json_build_object('renewed_at', "
            "extract(epoch FROM clock_timestamp()) - 5)::text)"
        )
        connection.execute(statement, {"key": DAEMON_CLAIM_KEY})
        connection.execute(
            text(
                "INSERT INTO daemon_heartbeats (daemon_type, timestamp) "
                "VALUES ('SENSOR', now() AT TIME ZONE 'UTC' - interval '30 s')"
            )
        )
        connection.execute(
            text("INSERT INTO runs (run_id, status, run_body) VALUES ('r', 'QUEUED', '{}')")
        )
    engine.dispose()


@pytest.fixture
def families(stocked: Site) -> Iterator[dict[str, Metric]]:
    yield parsed(exposition(stocked))
    stocked.close()


def parsed(answer: bytes) -> dict[str, Metric]:
    found = list(text_string_to_metric_families(answer.decode()))
    names = Counter(it.name for it in found)
    assert names.most_common(1)[0][1] == 1, "a metric is in one block"
    return {it.name: it for it in found}


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    found = [it.value for it in families[name].samples if it.labels == labels]
    assert len(found) == 1, families[name].samples
    return found[0]


def test_each_metric_is_exported_as_promtool_wants_it(families: dict[str, Metric]) -> None:
    for name, family in families.items():
        assert family.documentation, name
        assert family.type in ("gauge", "counter"), name
        for sample in family.samples:
            assert sample.name == (f"{name}_total" if family.type == "counter" else name)
            # No label repeats the name of the metric, or is one of Prometheus' own.
            assert not {"job", "instance", "le", "quantile"} & set(sample.labels)
        assert name in UNITLESS or family.type == "counter" or name.endswith(UNITS), name
        seen = Counter((it.name, *sorted(it.labels.items())) for it in family.samples)
        assert set(seen.values()) <= {1}, f"a sample of {name} is twice there"
    assert families.keys() >= UNITLESS


def test_the_document_names_each_metric_with_its_labels_and_no_other(
    families: dict[str, Metric],
) -> None:
    table = (PROJECT_ROOT / "docs" / "monitoring.md").read_text()
    rows = re.findall(r"^\| `(kpi_\w+)` \| (.*?) ?\| ", table, flags=re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert documented == {
        it.samples[0].name: set(it.samples[0].labels) for it in families.values()
    }, "each has a sample here"


def test_the_values_are_those_of_the_tables(families: dict[str, Metric]) -> None:
    assert value(families, "kpi_clients") == 3
    assert value(families, "kpi_client_data_age_seconds", workspace="harbor") == 600
    ages = {it.labels["workspace"] for it in families["kpi_client_data_age_seconds"].samples}
    assert ages == {"harbor", "quay"}, "a client without rows has no age"
    assert value(families, "kpi_client_sync_age_seconds", workspace="sloop") == 3600, "with calls"
    assert value(families, "kpi_client_sync_duration_seconds", workspace="harbor") == 2.5
    assert value(families, "kpi_client_sync_calls", workspace="quay") == 3
    assert value(families, "kpi_client_sync_failing", workspace="harbor") == 0
    assert value(families, "kpi_client_sync_failing", workspace="quay") == 1
    assert value(families, "kpi_sync_calls") == 6
    assert value(families, "kpi_sync_duration_seconds") == 62.5
    assert value(families, "kpi_sync_clients", result="failed") == 1
    assert value(families, "kpi_events_last_hour", source="feed", status="applied") == 1
    assert value(families, "kpi_events_last_hour", source="webhook", status="applied") == 2
    assert value(families, "kpi_events_uncounted", status="invalid") == 1
    assert value(families, "kpi_queue_length", queue="events") == 1
    assert value(families, "kpi_queue_length", queue="runs") == 1
    assert value(families, "kpi_check_severity", check="complete") == 2
    assert value(families, "kpi_check_severity", check="plausible") == 0
    assert value(families, "kpi_alert_severity", cause=FROM_OUTSIDE) == 2, "escaped, and read back"
    assert value(families, "kpi_alert_receiver_failing_seconds", receiver="slack of ops") == 86_400
    assert value(families, "kpi_alert_evaluation_age_seconds") == 20
    assert 5 <= value(families, "kpi_daemon_age_seconds") < 65
    assert 30 <= value(families, "kpi_daemon_heartbeat_age_seconds", daemon="sensor") < 90
    assert value(families, "kpi_dagster_runs", status="queued") == 1
    assert value(families, "kpi_part_running", part="gateway") == 1
    restarts = families["kpi_part_restarts"]
    assert [(it.labels, it.value) for it in restarts.samples] == [({"part": "gateway"}, 2)]


def test_the_age_of_each_clients_rows_is_that_of_the_check_freshness(engine: Engine) -> None:
    ages = {
        "today": {TODAY: 10},
        "ahead": {TODAY: -90},
        "yesterday": {TODAY - ONE_DAY: 600},
        "closed": {TODAY - ONE_DAY: 5, TODAY: 300},
        "old": {TODAY - 4 * ONE_DAY: 60},
        "older": {TODAY - 4 * ONE_DAY: 7_000},
        "empty": {},
    }
    put_clients(engine, *ages)
    for workspace, rows in ages.items():
        for day, minutes in rows.items():
            put_rows(engine, workspace, [day], as_of=NOW)
            with engine.begin() as connection:
                connection.execute(
                    text(
                        "UPDATE client_metrics SET as_of = :as_of "
                        "WHERE workspace = :workspace AND metric_date = :day"
                    ),
                    {"as_of": NOW - timedelta(minutes=minutes), "workspace": workspace, "day": day},
                )
    with engine.connect() as connection:
        found = {it.workspace: it.data_age for it in client_activity(connection, NOW, CHICAGO)}
        statuses = freshness_statuses(connection, NOW, CHICAGO, Deadlines())
    assert found == {
        it.workspace: None if it.as_of is None else (NOW - it.as_of).total_seconds()
        for it in statuses
    }
    assert len(set(found.values())) == len(ages), "they tell the cases apart"


# As PostgreSQL's integer has them.
_ages = st.none() | st.integers(-(2**31), 2**31 - 1)
_seconds = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.lists(st.tuples(st.text(), _ages, _seconds), max_size=4, unique_by=lambda it: it[0]),
    st.booleans(),
)
def test_the_metrics_of_clients_are_what_the_library_would_write(
    rows: list[tuple[str, int | None, float | None]], fails: bool
) -> None:
    clients = [ClientActivity(name, age, age, seconds, None) for name, age, seconds in rows]
    ours = client_families(clients, [it.workspace for it in clients] if fails else [])
    found = list(text_string_to_metric_families(ours))

    class Same(Collector):
        def collect(self) -> Iterator[Metric]:
            for it in found:
                family = GaugeMetricFamily(it.name, it.documentation, labels=["workspace"])
                for sample in it.samples:
                    family.add_metric([sample.labels["workspace"]], sample.value)
                yield family

    again = list(text_string_to_metric_families(generate_latest(Same()).decode()))
    assert again == found
    ages = {it.workspace: it.data_age for it in clients if it.data_age is not None}
    assert {it.labels["workspace"]: it.value for it in found[0].samples} == ages


def statements(engine: Engine, work: Callable[[], object]) -> int:
    """How many statements `work` sends."""
    found: list[str] = []

    def note(*arguments: object) -> None:
        found.append(str(arguments[2]))

    event.listen(engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return len(found)


def test_it_takes_as_many_statements_for_many_clients_as_for_few(
    stocked: Site, engine: Engine
) -> None:
    exposition(stocked)
    few = statements(engine, lambda: exposition(stocked))
    put_clients(engine, *(f"client-{number}" for number in range(200)))
    assert statements(engine, lambda: exposition(stocked)) == few <= 10
    assert statements(stocked.dagster_database, lambda: exposition(stocked)) == 1
    stocked.close()


def test_prometheus_needs_a_token_and_gets_its_own_type_of_text(
    stocked: Site, engine: Engine
) -> None:
    put_user(engine, role="viewer", password=None)
    token = new_api_token()
    with engine.begin() as connection:
        web.add_token(connection, "ann", "metrics", token_hash(token))
    with browsing(create_app(stocked)) as browser:
        browser.headers["accept"] = "text/plain;version=0.0.4"
        stranger = browser.get("/metrics")
        assert (stranger.status_code, "kpi_" in stranger.text) == (401, False)
        answer = browser.get("/metrics", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.text.endswith("\n")
    assert "kpi_clients 3.0\n" in answer.text
    stocked.close()


def test_without_dagsters_database_everything_else_is_exported(
    browse: httpx.Client, dashboard_site: Site, engine: Engine
) -> None:
    put_clients(engine, "harbor")
    nowhere = {"dagster_database_url": SecretStr("postgresql://nobody@127.0.0.1:1/none")}
    site = replace(dashboard_site, settings=dashboard_site.settings.model_copy(update=nowhere))
    families = parsed(exposition(site))
    assert value(families, "kpi_dagster_database_up") == 0
    assert value(families, "kpi_clients") == 1
    assert "kpi_daemon_age_seconds" not in families
    assert json.dumps(sorted(families)).count("dagster") == 1
    site.close()
