"""An agency at work: sandbox, PostgreSQL, Dagster's page and daemon, each a real process."""

import csv
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
from sqlalchemy import URL, make_url, text

from kpi_pipeline.db.clients import all_clients
from kpi_pipeline.domain.calendar import business_date, days_between
from kpi_pipeline.orchestration.runtime import LOCATION
from kpi_pipeline.services.dagster_page import RunStatus
from kpi_pipeline.services.playground import Playground
from kpi_pipeline_tests.expected import Row, expected_rows

_REPOSITORY = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__"}
ASSETS = ["raw_bison_stats", "kpi_projections", "client_metrics"]
_DEADLINE_SECONDS = 400.0


class Agency:
    """What a test holds of the running system."""

    def __init__(
        self,
        play: Playground,
        sandbox: httpx.Client,
        now: datetime,
        password: str,
        schedules_at_start: Mapping[str, str],
    ) -> None:
        self.page = play.page
        self.gateway = play.gateway
        self.app = play.app
        self.grid = play.grid
        self.children = play.children
        self.sandbox = sandbox
        self.now = now
        self.password = password
        self.schedules_at_start = schedules_at_start
        table = sandbox.get("/sandbox/clients.csv").text
        self.table = {
            int(row["bison_workspace_id"]): row for row in csv.DictReader(table.split("\n"))
        }
        with self.app.engine.connect() as connection:
            clients = all_clients(connection)
        self.ids = {client.workspace: client.bison_workspace_id for client in clients}

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.app.settings.state_dir

    @property
    def zone(self) -> ZoneInfo:
        """The business time zone."""
        return self.app.timezone

    @property
    def today(self) -> date:
        """The day on which the sandbox stands still."""
        return business_date(self.now, self.zone)

    def rows(self, table: str = "client_metrics") -> dict[tuple[str, date], Row]:
        """All rows of a table, by workspace and date."""
        day = "date" if table == "raw_bison_stats" else "metric_date"
        with self.app.engine.connect() as connection:
            found = connection.execute(text(f"SELECT * FROM {table}")).mappings()
            return {(row["workspace"], row[day]): dict(row) for row in found}

    def poll(
        self,
        ready: Callable[[], bool],
        what: str,
        seconds: float = _DEADLINE_SECONDS,
        every: float = 0.5,
    ) -> None:
        """Wait until `ready`, and show the logs when the deadline passes."""
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                logs = {p.name: p.read_text()[-3000:] for p in self.state.glob("logs/*.log")}
                raise AssertionError(f"{what} did not happen in time; {logs}")
            time.sleep(every)

    def run(self, assets: Sequence[str], tags: Mapping[str, str]) -> tuple[RunStatus, str]:
        """Launch a run as the page does, and wait for its end."""
        run_id = self.page.launch(assets, tags)
        self.wait_for(run_id)
        return self.page.status(run_id), run_id

    def wait_for(self, run_id: str) -> None:
        """Wait for the end of a run."""
        self.poll(lambda: self.page.status(run_id) is not RunStatus.UNDER_WAY, f"run {run_id}")

    def failure_of(self, run_id: str) -> str:
        """What a failed run says of itself."""
        query = """query ($run: ID!) { runOrError(runId: $run) { ... on Run {
            eventConnection { events { ... on ExecutionStepFailureEvent {
                error { message } failureMetadata { description } } } } } } }"""
        events = self.page.query(query, {"run": run_id})["runOrError"]["eventConnection"]["events"]
        return str([event for event in events if event])

    def split_from(self, run_id: str) -> list[str]:
        """How the runs stand that were asked for again after a failed one."""
        query = """query ($filter: RunsFilter!) { runsOrError(filter: $filter) {
            ... on Runs { results { status } } } }"""
        tags = [{"key": "kpi/retry_of", "value": run_id}]
        runs = self.page.query(query, {"filter": {"tags": tags}})["runsOrError"]["results"]
        return [run["status"] for run in runs]

    def failed_partitions(self, asset: str, dates: Sequence[date]) -> set[str]:
        """The partitions of these dates that the asset's page shows in red."""
        query = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) {
            ... on AssetNode { assetPartitionStatuses { ... on MultiPartitionStatuses { ranges {
                primaryDimStartKey primaryDimEndKey secondaryDim {
                    ... on DefaultPartitionStatuses { failedPartitions } } } } } } } }"""
        answer = self.page.query(query, {"key": {"path": [asset]}})
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

    def evaluate_schedule(self, name: str, tick: datetime) -> list[Mapping[str, Any]]:
        """What the schedule requests at `tick`, worked out by Dagster's own code server."""
        query = """mutation ($selector: ScheduleSelector!, $at: Float!) {
            scheduleDryRun(selectorData: $selector, timestamp: $at) { __typename
                ... on Error { message }
                ... on DryRunInstigationTick { evaluationResult { error { message }
                    runRequests { runKey tags { key value } assetSelection { path } } } } } }"""
        selector = {**_REPOSITORY, "scheduleName": name}
        variables = {"selector": selector, "at": tick.timestamp()}
        answer = self.page.query(query, variables)["scheduleDryRun"]
        assert answer["__typename"] == "DryRunInstigationTick", answer
        assert answer["evaluationResult"]["error"] is None, answer
        requests: list[Mapping[str, Any]] = answer["evaluationResult"]["runRequests"]
        return requests

    def launch_request(self, request: Mapping[str, Any]) -> str:
        """Start the run that a schedule requested."""
        assets = [asset["path"][0] for asset in request["assetSelection"]]
        return self.page.launch(assets, {tag["key"]: tag["value"] for tag in request["tags"]})

    def configuration_on_the_page(self) -> str:
        """What the page shows under AppContext."""
        return str(self.page.query("{ instance { info runLauncher { name } } }", {}))

    def dagster_database(self) -> URL:
        """Dagster's own tables."""
        address = self.app.settings.dagster_database_url
        assert address is not None
        return make_url(address.get_secret_value())

    def log_files(self) -> list[Path]:
        """All that the processes printed, the runs' included."""
        return [
            path for path in self.state.rglob("*") if path.is_file() and path.name != "secret.key"
        ]

    def own_key(self, workspace: str) -> str | None:
        """The client's own API key, as the sandbox made it."""
        return self.table[self.ids[workspace]]["api_key"] or None

    def master_key(self) -> str:
        """The super-admin key of the one instance."""
        (instance,) = self.app.settings.bison_instances
        assert instance.master_key is not None
        return instance.master_key.get_secret_value()

    def secrets(self) -> list[str]:
        """Every secret of the installation: the API keys' secret parts, and the other two."""
        keys = [self.own_key(workspace) for workspace in self.grid]
        return [
            *(key.split("|")[1] for key in keys if key),
            self.master_key().split("|")[1],
            (self.state / "secret.key").read_text(),
            self.password,
        ]

    def expected(
        self, workspaces: Sequence[str], dates: Sequence[date]
    ) -> dict[tuple[str, date], Row]:
        """The numbers of `client_metrics`, from Bison's own totals for each window."""
        facts = self.rows("raw_bison_stats")
        return expected_rows(
            str(self.sandbox.base_url),
            self.master_key(),
            {key: (self.ids[key], self.own_key(key), self.target(key)) for key in workspaces},
            dates,
            self.zone,
            self.now,
            as_of={key: facts[key, self.today]["as_of"] for key in workspaces}
            if self.today in dates
            else None,
        )

    def target(self, workspace: str) -> int | None:
        """The client's target of every month, in positive replies."""
        cell = self.table[self.ids[workspace]]["monthly_kpi_target"]
        return int(cell) if cell else None

    def backfill(self, partitions: Sequence[str]) -> str:
        """Start a backfill of the three assets as their page does; return how it ended."""
        launch = """mutation ($params: LaunchBackfillParams!) {
            launchPartitionBackfill(backfillParams: $params) { __typename
                ... on LaunchBackfillSuccess { backfillId } ... on Error { message } } }"""
        params = {
            "assetSelection": [{"path": [asset]} for asset in ASSETS],
            "partitionNames": list(partitions),
        }
        answer = self.page.query(launch, {"params": params})["launchPartitionBackfill"]
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        status = """query ($id: String!) { partitionBackfillOrError(backfillId: $id) {
            ... on PartitionBackfill { status } } }"""

        def state() -> str:
            found = self.page.query(status, {"id": answer["backfillId"]})
            return str(found["partitionBackfillOrError"]["status"])

        self.poll(lambda: state() not in ("REQUESTED", "COMPLETED"), "the backfill")
        return state()

    def control(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        """Turn one of the sandbox's switches."""
        return self.sandbox.request(method, f"/sandbox/{path}", json=body).raise_for_status()
