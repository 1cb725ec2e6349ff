"""An agency at work: sandbox, PostgreSQL, Dagster's page and daemon, each a real process."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from kpi_pipeline.db.tables import raw_bison_stats
from kpi_pipeline.domain.calendar import days_between
from kpi_pipeline.orchestration.runs import RANGE_END, RANGE_START, RETRY_OF
from kpi_pipeline.services.backfills import BackfillTarget, launch_backfill, read_status
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline.services.database import databases_to_upgrade
from kpi_pipeline.services.playground import Playground, playground
from kpi_pipeline.settings import load_settings
from kpi_pipeline_tests.agency import Agency, Rows
from kpi_pipeline_tests.bison_sandbox.running import Bison
from kpi_pipeline_tests.cli.running import calm_zone, wait_until
from kpi_pipeline_tests.end_to_end.schedules import stop_schedules

Target = Mapping[str, Sequence[date]]

_SANDBOX = {"clients": 26, "calls-per-second": 0, "latency": 0.01}
_RUNS = """query ($filter: RunsFilter!) { runsOrError(filter: $filter, limit: 500) {
    ... on Runs { results { runId status parentRunId tags { key value } } } } }"""
_EVENTS = """query ($run: ID!, $after: String) { runOrError(runId: $run) { ... on Run {
    eventConnection(afterCursor: $after) { cursor hasMore events {
        ... on MessageEvent { message } ... on ExecutionStepFailureEvent {
            error { message } failureMetadata { description } } } } } } }"""
_PARTITIONS = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) {
    ... on AssetNode { assetPartitionStatuses { ... on MultiPartitionStatuses { ranges {
        primaryDimStartKey primaryDimEndKey secondaryDim {
            ... on DefaultPartitionStatuses { failedPartitions } } } } } } } }"""
_AT_WORK = {"QUEUED", "NOT_STARTED", "MANAGED", "STARTING", "STARTED", "CANCELING"}


@dataclass(frozen=True)
class Run:
    """A run over a range of partitions; `parent` is the run that it does again."""

    id: str
    status: str
    parent: str | None
    tags: Mapping[str, str]

    @property
    def ends(self) -> set[str]:
        """The first and the last client of its range."""
        return {self.tags[tag].partition("|")[2] for tag in (RANGE_START, RANGE_END)}

    @property
    def will_restart(self) -> bool:
        """Whether Dagster starts it again."""
        return self.tags.get("dagster/will_retry") == "true"

    @property
    def is_to_be_split(self) -> bool:
        """Whether it failed for good, and the sensor retries what it left undone."""
        failed = self.status == "FAILURE" and not self.will_restart
        return failed and len(self.ends) > 1 and RETRY_OF not in self.tags


class RunningAgency(Agency):
    """An agency in Dagster's real processes. Its clients are in the order of Dagster's grid."""

    def __init__(
        self, play: Playground, bison: Bison, now: datetime, schedules_at_start: Mapping[str, str]
    ) -> None:
        super().__init__(replace(play.app, now=lambda: now), bison)
        assert self.workspaces == list(play.grid)
        self.page = play.page
        self.gateway = play.gateway
        self.children = play.children
        self.schedules_at_start = schedules_at_start

    def expected(
        self,
        dates: Sequence[date],
        workspaces: Sequence[str] | None = None,
        as_of: Mapping[str, datetime] | None = None,
    ) -> Rows:
        """The numbers of `client_metrics`, at the time at which a run asked for today's."""
        if as_of is None and self.today in dates:
            facts = self.rows(raw_bison_stats).items()
            as_of = {key[0]: row["as_of"] for key, row in facts if key[1] == self.today}
        return super().expected(dates, workspaces, as_of)

    def poll(
        self, ready: Callable[[], bool], what: str, seconds: float = 400, every: float = 0.5
    ) -> None:
        """Wait until `ready`, and show the logs when the deadline passes."""
        logs = self.app.settings.state_dir / "logs"

        def ends_of_logs() -> dict[str, str]:
            return {log.name: log.read_text()[-3000:] for log in logs.glob("*.log")}

        wait_until(ready, what, seconds, every, ends_of_logs)

    def run(self, assets: Sequence[str], tags: Mapping[str, str]) -> tuple[RunStatus, str]:
        """Launch a run as the page does, and wait for its end; how it ended, and its id."""
        run_id = self.page.launch(assets, tags)
        self.poll(lambda: self.page.status(run_id) is not RunStatus.UNDER_WAY, f"run {run_id}")
        return self.page.status(run_id), run_id

    def log_of(self, run_id: str) -> list[str]:
        """What Dagster's page shows of a run: its messages and its errors."""
        found: list[str] = []
        after = None
        while True:
            asked = {"run": run_id, "after": after}
            part = self.page.query(_EVENTS, asked)["runOrError"]["eventConnection"]
            found += [str(event) for event in part["events"] if event]
            if not part["hasMore"]:
                return found
            after = part["cursor"]

    def runs(self, *statuses: str) -> list[Run]:
        """The runs over ranges of partitions: all, or those of some statuses."""
        filter_ = {"statuses": list(statuses)} if statuses else {}
        found = self.page.query(_RUNS, {"filter": filter_})["runsOrError"]["results"]
        tags = [{tag["key"]: tag["value"] for tag in it["tags"]} for it in found]
        return [
            Run(it["runId"], it["status"], it["parentRunId"], its)
            for it, its in zip(found, tags, strict=True)
            if RANGE_START in its
        ]

    def is_at_rest(self) -> bool:
        """Whether all runs have ended, those included that retry others."""
        runs = self.runs()
        started_again = {run.parent for run in runs}
        split = {run.tags.get(RETRY_OF) for run in runs}
        return not any(
            run.status in _AT_WORK
            or (run.will_restart and run.id not in started_again)
            or (run.is_to_be_split and run.id not in split)
            for run in runs
        )

    def failed_partitions(self, asset: str, dates: Sequence[date]) -> set[str]:
        """The partitions of these dates that the asset's page shows in red."""
        answer = self.page.query(_PARTITIONS, {"key": {"path": [asset]}})
        return {
            f"{day}|{workspace}"
            for part in answer["assetNodeOrError"]["assetPartitionStatuses"]["ranges"]
            for day in days_between(
                date.fromisoformat(part["primaryDimStartKey"]),
                date.fromisoformat(part["primaryDimEndKey"]),
            )
            if day in dates
            for workspace in part["secondaryDim"]["failedPartitions"]
        }

    def launch_backfill(self, target: Target) -> str:
        """Launch a backfill of the three assets as their page does; its id."""
        return launch_backfill(self.page, BackfillTarget(target))

    def backfill(self, *targets: Target) -> list[str]:
        """Launch a backfill of each target, all at once, and wait; how they ended."""
        return [self.end_of(it) for it in [self.launch_backfill(target) for target in targets]]

    def end_of(self, backfill: str) -> str:
        """Wait for the end of a backfill; how it ended."""
        # To report the status is work for the page, which shares the machine with the runs.
        self.poll(
            lambda: read_status(self.page, backfill).ended,
            "the end of the backfill",
            seconds=900,
            every=2,
        )
        return read_status(self.page, backfill).name


@contextmanager
def running_agency(
    server: URL,
    administer: Callable[[str], None],
    state: Path,
    sandbox_options: Mapping[str, object] = _SANDBOX,
    *,
    settings: Mapping[str, object] | None = None,
    schedules_on: bool = False,
    takes_webhooks: bool = False,
) -> Iterator[RunningAgency]:
    """Start everything on databases of its own, as a user with a password of its own.

    `state` is its state folder, and `settings` are by name, beside those that every agency has.
    """
    with pytest.MonkeyPatch.context() as patch, _own_database(server, administer) as url:
        # An agency may outlast the test that starts it, and that test's environment.
        patch.setenv("KPI_ENV_FILE", "")
        patch.setenv("KPI_STATE_DIR", str(state))
        patch.delenv("KPI_TIMEZONE", raising=False)
        changed = {
            "database_url": SecretStr(url.render_as_string(hide_password=False)),
            "timezone": calm_zone(),
            "web_port": 0,
            "gateway_port": 0,
            "bison_attempts": 2,
            # A poll of the feed would bring the sandbox's own events of today into the counts.
            "event_feed_minutes": None,
            **(settings or {}),
        }
        described = load_settings().model_copy(update=changed)
        with databases_to_upgrade(described):
            pass
        targets_from = date(2020, 1, 1)
        with (
            playground(
                described, sandbox_options, targets_from, takes_webhooks=takes_webhooks
            ) as play,
            httpx.Client(base_url=play.sandbox, timeout=30) as http,
        ):
            (instance,) = play.app.settings.bison_instances
            assert instance.master_key is not None
            bison = Bison(http, instance.master_key.get_secret_value())
            # Today stands still, so that a row can be compared after the run that wrote it.
            now = datetime.now(UTC)
            bison.freeze(now.isoformat())
            at_start = {} if schedules_on else stop_schedules(play.page)
            yield RunningAgency(play, bison, now, at_start)


@contextmanager
def _own_database(server: URL, administer: Callable[[str], None]) -> Iterator[URL]:
    """An empty database, whose owner has a password and may create one for Dagster beside it."""
    name = f"agency_{secrets.token_hex(4)}"
    password = secrets.token_urlsafe(24)
    administer(f"CREATE ROLE {name} LOGIN CREATEDB PASSWORD '{password}'")
    administer(f"CREATE DATABASE {name} OWNER {name}")
    try:
        yield server.set(drivername="postgres", database=name, username=name, password=password)
    finally:
        administer(f"DROP DATABASE IF EXISTS {name}_dagster WITH (FORCE)")
        administer(f"DROP DATABASE {name} WITH (FORCE)")
        administer(f"DROP ROLE {name}")
