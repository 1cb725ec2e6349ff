"""Rounds of checks and looks for alerts, at moments of the test's own, beside a real page."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar
from zoneinfo import ZoneInfo

from dagster import DagsterInstance
from sqlalchemy import URL, text

from kpi_pipeline.alerts.delivery import receivers_of
from kpi_pipeline.alerts.evaluate import evaluate
from kpi_pipeline.app import AppContext
from kpi_pipeline.checks.outcome import Check
from kpi_pipeline.definitions import build_definitions
from kpi_pipeline.orchestration.asset_checks.specs import LIGHT_CHECKS, check_key
from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.services.dagster_home import dagster_instance
from kpi_pipeline.sync.run import run_sync
from kpi_pipeline.sync.scope import KpiAsset, PartitionBlock
from kpi_pipeline_tests.bison_sandbox.receiver import Receiver
from kpi_pipeline_tests.end_to_end.agency import Agency
from kpi_pipeline_tests.end_to_end.starting import running_agency

_CHECKS_OF_ASSET = """
query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization {
    status evaluation { severity description metadataEntries { label ... on TableMetadataEntry {
      table { records } } } } } } } } } } }
"""


def ten_o_clock(now: datetime) -> ZoneInfo:
    """A time zone in which it is between ten and eleven: neither midnight nor six is near."""
    ahead = (10 - now.astimezone(UTC).hour + 12) % 24 - 12
    # The names of these zones count the other way round.
    return ZoneInfo(f"Etc/GMT{-ahead:+d}" if ahead else "Etc/GMT")


@contextmanager
def lively_agency(
    server: URL,
    administer: Callable[[str], None],
    state: Path,
    clients: int,
    **settings: object,
) -> Iterator[Agency]:
    """An agency at ten in the morning, with all schedules and sensors on, and a gateway."""
    described = {"timezone": ten_o_clock(datetime.now(UTC)), **settings}
    with running_agency(
        server,
        administer,
        state,
        {"clients": clients, "calls-per-second": 0, "latency": 0},
        settings=described,
        schedules_on=True,
        takes_webhooks=True,
    ) as agency:
        yield agency


class LaterDeployment(AppResource):
    """The app of the environment, as long after the real time as was said last."""

    passed: ClassVar = timedelta(0)

    @contextmanager
    def opened(self) -> Iterator[AppContext]:
        with super().opened() as app:
            yield later(app, self.passed)


def later(app: AppContext, passed: timedelta) -> AppContext:
    """The same app, so long after the real time."""
    return replace(app, now=lambda: datetime.now(UTC) + passed)


@dataclass(frozen=True)
class Seen:
    """A check as its page shows it: the status, and of a failure the severity and description."""

    status: str
    severity: str
    description: str
    offenders: str


class Alarms:
    """What a test of alarms holds. Hours are those that have passed since it began."""

    def __init__(self, agency: Agency, instance: DagsterInstance, receiver: Receiver) -> None:
        self.agency = agency
        self.instance = instance
        self.receiver = receiver
        settings = agency.app.settings
        definitions = build_definitions(settings, LaterDeployment())
        self._job = definitions.resolve_implicit_global_asset_job_def()

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
        """Do the check, and see it as its page shows it."""
        for _ in range(5):
            self.round(hours, check)
            if seen := self.seen(check):
                return seen
        raise AssertionError(
            f"{check} never shows: its asset is materialized, or checked, all the time"
        )

    def round(self, hours: float, *checks: Check) -> None:
        """Do the checks, or the light ones, in a run that the page knows of."""
        LaterDeployment.passed = timedelta(hours=hours)
        keys = {check_key(it) for it in checks} or set(LIGHT_CHECKS)
        subset = self._job.get_subset(asset_check_selection=keys)
        done = subset.execute_in_process(instance=self.instance)
        assert {it.asset_check_key for it in done.get_asset_check_evaluations()} == keys

    def seen(self, check: Check) -> Seen | None:
        """The check as the page's own query gets it.

        None if it is older than its asset, or if a run that somebody else began is about to do it.
        """
        key = check_key(check)
        answer = self.agency.page.query(_CHECKS_OF_ASSET, {"key": {"path": key.asset_key.path}})
        checks = answer["assetNodeOrError"]["assetChecksOrError"]["checks"]
        (found,) = [it for it in checks if it["name"] == check.value]
        execution = found["executionForLatestMaterialization"]
        if execution is None or execution["evaluation"] is None:
            return None
        evaluation = execution["evaluation"]
        tables = [it["table"]["records"] for it in evaluation["metadataEntries"] if "table" in it]
        return Seen(
            execution["status"], evaluation["severity"], evaluation["description"], str(tables)
        )

    def look(self, hours: float) -> None:
        """Tell people what there is to tell."""
        app = self.app(hours)
        evaluate(app, receivers_of(app.settings.alert_urls))

    def told(self, check: Check) -> list[str]:
        """What was told of the check, in the words that begin each notice."""
        title = f": {check.value} of {check_key(check).asset_key.to_user_string()}"
        lines = [
            line
            for it in self.receiver.received
            for line in str(it.body["message"]).splitlines()
            if line.endswith(title)
        ]
        return [line.removesuffix(title) for line in lines]

    def sync(self, hours: float, *days_ago: int, clients: Sequence[str] = ()) -> None:
        """Fetch and work out these days of all clients, or some, as of that hour."""
        sync(self.app(hours), clients or self.agency.grid, days_ago or (1, 0))

    def follow(self, check: Check, hours: float, severity: str, every: float = 0.25) -> Seen:
        """From the failed check on the page to one alert, and no other on the next two rounds."""
        seen = self.checked(check, hours)
        assert (seen.status, seen.severity) == ("FAILED", severity), seen
        # The daemon's own sensor looks every 30 s, and may have been quicker.
        assert self.told(check) in ([], [severity])
        for later in range(3):
            self.round(hours + later * every, check)
            self.look(hours + later * every)
            assert self.told(check) == [severity]
        return seen

    def recovered(self, check: Check, hours: float) -> None:
        """The check passes on the page, and whoever was told is told so, once."""
        before = self.told(check)
        seen = self.checked(check, hours)
        assert seen.status == "SUCCEEDED", seen
        for later in (0.0, 0.25):
            self.look(hours + later)
        assert self.told(check) == [*before, "RESOLVED"]


def sync(app: AppContext, clients: Sequence[str], days_ago: Iterable[int]) -> None:
    """Fetch and work out these days of the clients."""
    today = app.today()
    dates = sorted(today - timedelta(days=it) for it in days_ago)
    block = PartitionBlock(list(clients), dates)
    run_id = f"a sync at {app.now()}"
    outcomes = run_sync(app, block, list(KpiAsset), run_id=run_id)
    assert [it.error for it in outcomes if it.error] == []


@contextmanager
def watching(agency: Agency, receiver: Receiver) -> Iterator[Alarms]:
    """Open the agency's Dagster in this process, too."""
    with dagster_instance(agency.app.settings) as instance:
        yield Alarms(agency, instance, receiver)
