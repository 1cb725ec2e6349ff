"""An installation in which all is well, and the faults that tests make in it and undo.

Email Bison, the databases, the gateway and the receiver of alerts are real; Dagster's daemon is
what one leaves in its database: its claim, heartbeats and ticks.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

import pytest
from dagster import DagsterInstance
from dagster._core.scheduler.instigation import InstigatorType
from dagster._daemon.types import DaemonHeartbeat
from dagster_postgres import PostgresRunStorage
from pydantic import SecretStr
from sqlalchemy import URL, Engine, text
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from kpi_pipeline.app import AppContext, open_app
from kpi_pipeline.db.alert_evaluations import store_evaluation
from kpi_pipeline.db.backup.record import LastDump, note_dump
from kpi_pipeline.db.check_results import StoredOutcome, store_outcomes
from kpi_pipeline.db.dagster_tables import DAEMON_CLAIM_KEY
from kpi_pipeline.db.registry.clients_csv import parse
from kpi_pipeline.db.registry.vault import new_secret_key
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.db.server.urls import for_dagster
from kpi_pipeline.domain.clock import utc_now
from kpi_pipeline.gateway.app import create_app
from kpi_pipeline.inbox.ingest import Inbox
from kpi_pipeline.orchestration.automation import build_automation
from kpi_pipeline.orchestration.rebuild import rebuild
from kpi_pipeline.services.dagster_home import dagster_instance
from kpi_pipeline.services.database import ready_databases
from kpi_pipeline.services.doctor.finding import Finding, Verdict
from kpi_pipeline.settings import load_settings
from kpi_pipeline.sync.webhooks import EVENTS
from kpi_pipeline_tests.agency import Agency, variables_of, write
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.cli.running import PASSWORD, address, calm_zone, days_ago
from kpi_pipeline_tests.gateway.support import serving
from kpi_pipeline_tests.orchestration.ticks import leave_tick

CLIENTS = 3


class Door:
    """A proxy before the gateway, which answers itself while it is `shut` to a status."""

    def __init__(self, gateway: ASGIApp) -> None:
        self._gateway = gateway
        self.shut: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.shut is None or scope["type"] != "http":
            await self._gateway(scope, receive, send)
        else:
            headers = {"Location": "https://elsewhere.example/"}
            await PlainTextResponse("", self.shut, headers)(scope, receive, send)


@dataclass
class Well:
    """The installation; `environment` are its settings, with which each examination begins."""

    environment: dict[str, str]
    agency: Agency
    dagster: DagsterInstance
    dagster_engine: Engine
    receiver: Receiver
    door: Door
    folder: Path

    @property
    def app(self) -> AppContext:
        """The installation, opened."""
        return self.agency.app

    @property
    def bison(self) -> Bison:
        """Its Email Bison."""
        return self.agency.bison

    @property
    def client(self) -> str:
        """A client with a key of its own."""
        return self.agency.keyed[0]

    @property
    def secrets(self) -> list[str]:
        """What no output may show."""
        keys = [key for it in self.agency.workspaces if (key := self.agency.key(it))]
        named = ("KPI_SECRET_KEY", "KPI_WEBHOOK_SECRET_MAIN")
        return [self.bison.master_key, PASSWORD, *keys, *(self.environment[it] for it in named)]

    def sql(self, statement: str, **values: object) -> None:
        """Execute a statement in the KPI database."""
        with self.app.engine.begin() as connection:
            connection.execute(text(statement), values)

    def dagster_sql(self, statement: str, **values: object) -> None:
        """Execute a statement in Dagster's database."""
        with self.dagster_engine.begin() as connection:
            connection.execute(text(statement), values)

    def tick(self, name: str, **how: Any) -> None:
        """A tick of a schedule or sensor, which replaces what is known of it."""
        kind = InstigatorType.SENSOR if "sensor" in name else InstigatorType.SCHEDULE
        leave_tick(self.dagster, name, kind=kind, **how)

    def sets(self, patch: pytest.MonkeyPatch, **changed: str | None) -> None:
        """Have this process the installation's settings, changed so; None: unset."""
        for name, value in {**self.environment, **changed}.items():
            if value is None:
                patch.delenv(name, raising=False)
            else:
                patch.setenv(name, value)


def not_made(findings: list[Finding]) -> set[str]:
    """The checks that were not made."""
    return {it.check for it in findings if it.verdict is Verdict.NOT_CHECKED}


@contextmanager
def well_installation(
    database: URL, dagster_database: URL, bison: Bison, receiver: Receiver, folder: Path
) -> Iterator[Well]:
    """Three clients of Email Bison, imported, synced, with webhooks, alerts, a daemon, a dump."""
    zone = calm_zone()
    secret = token_urlsafe(32)
    environment = variables_of(bison, zone) | {
        "KPI_DATABASE_URL": address(database),
        "KPI_DAGSTER_DATABASE_URL": address(dagster_database),
        "KPI_SECRET_KEY": new_secret_key(),
        "KPI_STATE_DIR": str(folder / "state"),
        "KPI_ENV_FILE": "",
        "KPI_BISON_ATTEMPTS": "1",
        "KPI_EVENT_FEED_MINUTES": "5",
        "KPI_WEBHOOK_SECRET_MAIN": secret,
        "KPI_ALERT_URLS": f"{receiver.url.replace('http', 'json', 1)}/alerts",
        "KPI_DASHBOARD_PORT": "0",
    }
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        engine = open_engine(database)
        stack.callback(engine.dispose)
        inbox = Inbox(engine, zone, utc_now, {}, realtime=True)
        door = Door(create_app(inbox, {"main": SecretStr(secret)}))
        http = stack.enter_context(serving(door))
        environment["KPI_GATEWAY_URL"] = str(http.base_url).rstrip("/")
        for name in [it for it in os.environ if it.startswith("KPI_")]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        settings = stack.enter_context(ready_databases(load_settings()))
        app = stack.enter_context(open_app(settings))
        agency = _synced(app, bison)
        _leave_events(app)
        dagster = stack.enter_context(dagster_instance(settings))
        dagster_engine = open_engine(dagster_database)
        stack.callback(dagster_engine.dispose)
        made = Well(environment, agency, dagster, dagster_engine, receiver, door, folder)
        _leave_daemon(made)
        rebuild(app, dagster, dry_run=False)
        _register_webhooks(bison, f"{environment['KPI_GATEWAY_URL']}/webhooks/bison/{secret}")
        patch.undo()
        yield made


def _synced(app: AppContext, bison: Bison) -> Agency:
    listed = bison.http.get("/sandbox/clients.csv").raise_for_status().text
    records = [
        replace(it, monthly_kpi_target=it.monthly_kpi_target or 10)
        for it in parse(listed, app.instances(), "clients.csv")
    ]
    write(app, records)
    agency = Agency(app, bison)
    agency.synced([days_ago(1), days_ago(0)])
    return agency


def _leave_events(app: AppContext) -> None:
    now = app.now()
    passed = StoredOutcome(
        "complete", "client_metrics", "WARN", "All is well.", [], 0, [], now, None
    )
    with app.engine.begin() as connection:
        store_outcomes(connection, [passed])
        store_evaluation(connection, now + timedelta(hours=1))


def _leave_daemon(made: Well) -> None:
    """What a daemon leaves that works for as long as the tests take."""
    later = made.app.now() + timedelta(hours=1)
    claim = {
        "holder": "made-up", "command": "kpi up", "host": "here", "pid": 1,
        "since": later.timestamp(), "renewed_at": later.timestamp(),
    }  # fmt: skip
    made.dagster_sql(
        "INSERT INTO kvs (key, value) VALUES (:key, :value)",
        key=DAEMON_CLAIM_KEY,
        value=json.dumps(claim),
    )
    # The storage of dagster.yaml would take the claim for this process.
    storage = PostgresRunStorage(for_dagster(made.dagster_engine.url), False)
    for kind in made.dagster.get_required_daemon_types():
        storage.add_daemon_heartbeat(DaemonHeartbeat(later.timestamp(), kind, "made-up", []))
    storage.dispose()
    automation = build_automation(made.app.settings)
    names = [it.name for it in automation.schedules] + [it.name for it in automation.sensors]
    for name in names:
        made.tick(name, at=later)
    with made.dagster_engine.begin() as connection:
        note_dump(connection, LastDump(made.app.now(), "here", "/backups/kpi.dump", 1))


def _register_webhooks(bison: Bison, url: str) -> None:
    for row in bison.clients():
        key = row["api_key"] or None
        if key is None:
            bison.switch(int(row["bison_workspace_id"]))
        body = {"name": "kpi", "url": url, "events": list(EVENTS)}
        made = bison.call("POST", "/api/webhook-url", key=key, json=body)
        assert made.status_code == 201, made.text
