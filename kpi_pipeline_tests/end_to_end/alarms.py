"""An agency of eight clients whose checks and alerts a test runs, at hours of its own."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import dagster as dg
import httpx
from pydantic import SecretStr
from sqlalchemy import URL

from kpi_pipeline.alerts.delivery import receivers_of
from kpi_pipeline.alerts.evaluate import evaluate
from kpi_pipeline.alerts.wording import WORDING
from kpi_pipeline.app import AppContext
from kpi_pipeline.checks.outcome import Check
from kpi_pipeline.db.registry.vault import Vault, new_secret_key
from kpi_pipeline.db.server.clock import DatabaseClock
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.definitions import build_definitions
from kpi_pipeline.gateway.app import create_app
from kpi_pipeline.inbox.ingest import inbox_of
from kpi_pipeline.orchestration.asset_checks.specs import LIGHT_CHECKS, check_key
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.agency import Agency, open_agency, ten_o_clock
from kpi_pipeline_tests.alerts.support import json_url
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver, receiving
from kpi_pipeline_tests.bison_sandbox.running import Stage, bison_on, options
from kpi_pipeline_tests.conftest import instance_of
from kpi_pipeline_tests.databases import another_database
from kpi_pipeline_tests.gateway.support import serving
from kpi_pipeline_tests.orchestration.installation import instance_in_files

SECRET = "m" * 40


class LaterApp(AppResource):
    """The app that runs use: that of the test, at the hour that it set last."""

    app: ClassVar[AppContext]

    @contextmanager
    def opened(self) -> Iterator[AppContext]:
        yield LaterApp.app


class Alarms:
    """An agency whose checks and alerts the test runs at hours of its own."""

    def __init__(
        self, agency: Agency, instance: dg.DagsterInstance, receiver: Receiver, http: httpx.Client
    ) -> None:
        self.agency = agency
        self.instance = instance
        self.receiver = receiver
        self.today = agency.today
        self.definitions = build_definitions(agency.app.settings, LaterApp())
        self._http = http

    def app(self, hours: float) -> AppContext:
        """The app at that hour."""
        passed = timedelta(hours=hours)
        return replace(self.agency.app, now=lambda: datetime.now(UTC) + passed)

    def sync(self, hours: float, *days_ago: int, clients: Sequence[str] = ()) -> None:
        """Fetch and compute these days of all clients, or some, at that hour."""
        dates = sorted(self.today - timedelta(days=it) for it in days_ago or (1, 0))
        agency = self.agency.with_app(now=self.app(hours).now)
        agency.synced(dates, clients or agency.workspaces)

    def forget(self) -> None:
        """Forget all outcomes, alerts and faults, and make all clients active."""
        self.agency.control("DELETE", "faults")
        self.agency.sql("UPDATE clients SET active = true")
        for table in ("check_outcomes", "alert_state", "sync_log"):
            self.agency.sql(f"DELETE FROM {table}")
        # What was fetched in a later hour would outlast what is fetched now.
        for table in ("raw_bison_stats", "sending_plans", "kpi_projections", "client_metrics"):
            self.agency.sql(f"UPDATE {table} SET as_of = least(as_of, now())")
        self.receiver.received.clear()

    def check(self, hours: float, *checks: Check) -> dg.AssetCheckEvaluation:
        """Execute the check, or all light ones, in a run; the outcome of the first."""
        LaterApp.app = self.app(hours)
        keys = {check_key(it) for it in checks} or set(LIGHT_CHECKS)
        job = self.definitions.resolve_implicit_global_asset_job_def()
        run = job.get_subset(asset_check_selection=keys).execute_in_process(instance=self.instance)
        outcomes = run.get_asset_check_evaluations()
        assert {it.asset_check_key for it in outcomes} == keys
        return outcomes[0]

    def alert(self, hours: float) -> None:
        """Evaluate the alerts at that hour."""
        app = self.app(hours)
        evaluate(app, receivers_of(app.settings.alert_urls))

    def notices(self, check: Check) -> list[str]:
        """The first words of each notice about the check."""
        messages = [str(it.body["message"]) for it in self.receiver.received]
        headings = [part.splitlines()[0] for it in messages for part in it.split("\n\n")]
        said = [it.partition(": ") for it in headings]
        return [first for first, _, what in said if what.startswith(WORDING[check])]

    def assert_alerted_once(
        self, check: Check, severity: str, hours: float = 0, every: float = 0.25
    ) -> dg.AssetCheckEvaluation:
        """The check fails, and there is one alert of it, and no other after the next two runs."""
        outcome = self.check(hours, check)
        assert (outcome.passed, outcome.severity.value) == (False, severity), outcome
        self.alert(hours)
        for later in (1, 2):
            assert self.notices(check) == [severity]
            self.check(hours + later * every, check)
            self.alert(hours + later * every)
        assert self.notices(check) == [severity]
        return outcome

    def assert_resolved(self, check: Check, hours: float) -> None:
        """The check passes, and one notice reports it."""
        before = self.notices(check)
        outcome = self.check(hours, check)
        assert outcome.passed, outcome
        for later in (0.0, 0.25):
            self.alert(hours + later)
        assert self.notices(check) == [*before, "RESOLVED"]

    def deliver(self, *bodies: str, secret: str = SECRET) -> list[int]:
        """Send webhooks to the gateway; the statuses of its answers."""
        path = f"/webhooks/bison/{secret}"
        return [self._http.post(path, content=it).status_code for it in bodies]

    def leads(self, number: int) -> list[str]:
        """Leads that turn interested now, and whose webhooks are not delivered yet."""
        workspace = {"bison_workspace_id": str(self.agency.ids[self.agency.keyed[0]])}
        return [json.dumps(it) for it in self.agency.bison.mark(workspace, number, deliver=False)]


def problems_of(outcome: dg.AssetCheckEvaluation) -> str:
    """The rows of an outcome's table."""
    tables = [it for it in outcome.metadata.values() if isinstance(it, dg.TableMetadataValue)]
    return str([record.data for table in tables for record in table.records])


@contextmanager
def filled_alarms(postgres: URL, stage: Stage) -> Iterator[Alarms]:
    """Eight clients, filled for 40 days, at ten in the morning, with a gateway and a receiver."""
    now, zone = datetime.now(UTC), ten_o_clock()
    with ExitStack() as stack:
        engine = open_engine(stack.enter_context(another_database(postgres)))
        stack.callback(engine.dispose)
        receiver = stack.enter_context(receiving())
        sandbox = options(clients=8, today=None, timezone=zone.key)
        bison = stack.enter_context(bison_on(stage, sandbox))
        bison.freeze(now.isoformat())
        settings = Settings(
            bison_instances=(instance_of(bison),),
            bison_calls_per_second=0,
            bison_attempts=2,
            bison_timezone=zone,
            timezone=zone,
            alert_urls=(SecretStr(json_url(receiver.url)),),
            webhook_secret={"main": SecretStr(SECRET)},
        )
        vault = Vault(SecretStr(new_secret_key()))
        app = AppContext(settings, engine, vault, DatabaseClock(engine))
        gateway = create_app(inbox_of(app, realtime=True), settings.webhook_secret)
        http = stack.enter_context(serving(gateway))
        instance = stack.enter_context(instance_in_files())
        alarms = Alarms(open_agency(app, bison), instance, receiver, http)
        alarms.sync(0, *range(41))
        yield alarms
