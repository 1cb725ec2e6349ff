"""Rounds of checks and evaluations of alerts, at moments of the test's own."""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import dagster as dg
import httpx
from pydantic import SecretStr
from sqlalchemy import Engine, text

from kpi_pipeline.alerts.delivery import receivers_of
from kpi_pipeline.alerts.evaluate import evaluate
from kpi_pipeline.app import AppContext
from kpi_pipeline.checks.outcome import Check
from kpi_pipeline.db.vault import Vault, new_secret_key
from kpi_pipeline.definitions import build_definitions
from kpi_pipeline.gateway.app import create_app
from kpi_pipeline.inbox.ingest import inbox_of
from kpi_pipeline.orchestration.asset_checks.specs import LIGHT_CHECKS, check_key
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.settings import Settings
from kpi_pipeline_tests.agency import Agency, open_agency
from kpi_pipeline_tests.alerts.support import json_url
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver, receiving
from kpi_pipeline_tests.bison_sandbox.running import Stage, bison_on, options
from kpi_pipeline_tests.conftest import instance_of
from kpi_pipeline_tests.gateway.in_process import serving
from kpi_pipeline_tests.orchestration.installation import instance_in_files


def ten_o_clock(now: datetime) -> ZoneInfo:
    """A time zone in which it is between ten and eleven: neither midnight nor six is near."""
    ahead = (10 - now.astimezone(UTC).hour + 12) % 24 - 12
    # The names of these zones count the other way round.
    return ZoneInfo(f"Etc/GMT{-ahead:+d}" if ahead else "Etc/GMT")


class LaterApp(AppResource):
    """The app of the test, as long after the real time as was said last."""

    app: ClassVar[AppContext]
    passed: ClassVar = timedelta(0)

    @contextmanager
    def opened(self) -> Iterator[AppContext]:
        yield later(LaterApp.app, LaterApp.passed)


def later(app: AppContext, passed: timedelta) -> AppContext:
    """The same app, so long after the real time."""
    return replace(app, now=lambda: datetime.now(UTC) + passed)


@dataclass(frozen=True)
class Seen:
    """A check as Dagster stores it; `problems` are its rows, as JSON."""

    passed: bool
    severity: str
    description: str
    problems: str


class Alarms:
    """What a test of alarms holds. Hours are those that have passed since it began."""

    def __init__(
        self, agency: Agency, instance: dg.DagsterInstance, receiver: Receiver, http: httpx.Client
    ) -> None:
        self.agency = agency
        self.instance = instance
        self.receiver = receiver
        self.today = agency.app.today()
        self.definitions = build_definitions(agency.app.settings, LaterApp())
        self._http = http
        self._job = self.definitions.resolve_implicit_global_asset_job_def()

    def forget(self) -> None:
        """As if nothing had ever been found or told."""
        for table in ("check_outcomes", "alert_state", "sync_log"):
            self.sql(f"DELETE FROM {table}")
        # What was fetched in hours to come would outlast what is fetched now.
        for table in ("raw_bison_stats", "sending_plans", "kpi_projections", "client_metrics"):
            self.sql(f"UPDATE {table} SET as_of = least(as_of, now())")
        self.receiver.received.clear()

    def sql(self, statement: str, **values: object) -> None:
        with self.agency.app.engine.begin() as connection:
            connection.execute(text(statement), values)

    @contextmanager
    def inactive(self, clients: Sequence[str]) -> Iterator[None]:
        """Without these clients, while the block lasts."""
        statement = "UPDATE clients SET active = :active WHERE workspace = ANY(:clients)"
        self.sql(statement, active=False, clients=list(clients))
        try:
            yield
        finally:
            self.sql(statement, active=True, clients=list(clients))

    def app(self, hours: float) -> AppContext:
        return later(self.agency.app, timedelta(hours=hours))

    def checked(self, check: Check, hours: float) -> Seen:
        """Do the check in a run; what Dagster stores of it."""
        (seen,) = self.round(hours, check)
        return seen

    def round(self, hours: float, *checks: Check) -> list[Seen]:
        """Do the checks, or the light ones, in one run."""
        LaterApp.passed = timedelta(hours=hours)
        keys = {check_key(it) for it in checks} or set(LIGHT_CHECKS)
        subset = self._job.get_subset(asset_check_selection=keys)
        done = subset.execute_in_process(instance=self.instance)
        found = done.get_asset_check_evaluations()
        assert {it.asset_check_key for it in found} == keys
        return [_seen(it) for it in found]

    def evaluate(self, hours: float) -> None:
        """Tell people what there is to tell."""
        app = self.app(hours)
        evaluate(app, receivers_of(app.settings.alert_urls))

    def told(self, check: Check) -> list[str]:
        """The first words of each notice about the check."""
        title = f": {check.value} of {check_key(check).asset_key.to_user_string()}"
        lines = [
            line
            for it in self.receiver.received
            for line in str(it.body["message"]).splitlines()
            if line.endswith(title)
        ]
        return [line.removesuffix(title) for line in lines]

    def sync(self, hours: float, *days_ago: int, clients: Sequence[str] = ()) -> None:
        """Fetch and compute these days of all clients, or some, as of that hour."""
        dates: list[date] = sorted(self.today - timedelta(days=it) for it in days_ago or (1, 0))
        self.agency.with_app(now=self.app(hours).now).synced(
            dates, clients or self.agency.workspaces
        )

    def follow(self, check: Check, hours: float, severity: str, every: float = 0.25) -> Seen:
        """From the failed check to one alert, and no other in the next two rounds."""
        seen = self.checked(check, hours)
        assert (seen.passed, seen.severity) == (False, severity), seen
        self.evaluate(hours)
        for later in (1, 2):
            assert self.told(check) == [severity]
            self.round(hours + later * every, check)
            self.evaluate(hours + later * every)
        assert self.told(check) == [severity]
        return seen

    def recovered(self, check: Check, hours: float) -> None:
        """The check passes, and people hear of it once."""
        before = self.told(check)
        seen = self.checked(check, hours)
        assert seen.passed, seen
        for later in (0.0, 0.25):
            self.evaluate(hours + later)
        assert self.told(check) == [*before, "RESOLVED"]

    def control(self, method: str, path: str, body: object = None) -> Any:
        """Turn one of the sandbox's switches."""
        http = self.agency.bison.http
        return http.request(method, f"/sandbox/{path}", json=body).raise_for_status()

    def deliver(self, *bodies: str, secret: str | None = None) -> list[int]:
        """Send webhooks to the gateway; its answers."""
        path = f"/webhooks/bison/{secret or self.webhook_secret}"
        return [self._http.post(path, content=it).status_code for it in bodies]

    @property
    def webhook_secret(self) -> str:
        return self.agency.app.settings.webhook_secret["main"].get_secret_value()


def _seen(evaluation: dg.AssetCheckEvaluation) -> Seen:
    values = evaluation.metadata.values()
    records = [
        record.data
        for it in values
        if isinstance(it, dg.TableMetadataValue)
        for record in it.records
    ]
    return Seen(
        evaluation.passed,
        evaluation.severity.value,
        evaluation.description or "",
        json.dumps(records, ensure_ascii=False),
    )


@contextmanager
def open_alarms(engine: Engine, stage: Stage) -> Iterator[Alarms]:
    """Eight clients, filled for 40 days, at ten in the morning, with a gateway and a receiver."""
    now = datetime.now(UTC)
    zone = ten_o_clock(now)
    with ExitStack() as stack:
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
            webhook_secret={"main": SecretStr("m" * 40)},
        )
        LaterApp.app = AppContext(settings, engine, Vault(SecretStr(new_secret_key())))
        gateway = create_app(inbox_of(LaterApp.app, realtime=True), settings.webhook_secret)
        http = stack.enter_context(serving(gateway))
        instance = stack.enter_context(instance_in_files())
        alarms = Alarms(open_agency(LaterApp.app, bison), instance, receiver, http)
        alarms.sync(0, *range(41))
        yield alarms
