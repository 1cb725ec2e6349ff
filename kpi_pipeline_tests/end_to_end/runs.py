"""The runs of a backfill, as Dagster's page tells of them, and their processes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kpi_pipeline.orchestration.runs import RANGE_END, RANGE_START, RETRY_OF
from kpi_pipeline.services.dagster_page import DagsterPage

_RUNS = """query ($filter: RunsFilter!) { runsOrError(filter: $filter, limit: 500) {
    ... on Runs { results { runId status parentRunId tags { key value } } } } }"""
_EVENTS = """query ($run: ID!) { runOrError(runId: $run) { ... on Run {
    eventConnection { events { ... on MessageEvent { message } } } } } }"""
_AT_WORK = ["QUEUED", "NOT_STARTED", "MANAGED", "STARTING", "STARTED", "CANCELING"]


@dataclass(frozen=True)
class Run:
    """One run; `parent` is the run that it does again."""

    id: str
    status: str
    parent: str | None
    tags: dict[str, str]

    @property
    def first_workspace(self) -> str:
        """The first client of its range."""
        return self.tags[RANGE_START].partition("|")[2]

    @property
    def last_workspace(self) -> str:
        """The last client of its range."""
        return self.tags[RANGE_END].partition("|")[2]

    @property
    def is_to_be_split(self) -> bool:
        """Whether it failed for good, and the sensor retries what it left undone."""
        return (
            self.status == "FAILURE"
            and self.last_workspace != self.first_workspace
            and RETRY_OF not in self.tags
            and self.tags.get("dagster/will_retry") != "true"
        )


def runs(page: DagsterPage, statuses: Sequence[str] = ()) -> list[Run]:
    """All runs over ranges, or those of some statuses; rounds of checks come by themselves."""
    filter_ = {"statuses": list(statuses)} if statuses else {}
    found = page.query(_RUNS, {"filter": filter_})["runsOrError"]["results"]
    return [
        Run(
            it["runId"],
            it["status"],
            it["parentRunId"],
            {tag["key"]: tag["value"] for tag in it["tags"]},
        )
        for it in found
        if RANGE_START in {tag["key"] for tag in it["tags"]}
    ]


def under_way(page: DagsterPage) -> list[Run]:
    """The runs that are not over yet, or that Dagster is about to start again."""
    everything = runs(page)
    parents = {run.parent for run in everything}
    return [
        run
        for run in everything
        if run.status in _AT_WORK
        or (run.tags.get("dagster/will_retry") == "true" and run.id not in parents)
    ]


def at_rest(page: DagsterPage) -> bool:
    """Whether all is over: what failed has been asked for again, and that is over, too."""
    asked_again = {run.tags.get(RETRY_OF) for run in runs(page)}
    return not under_way(page) and all(
        run.id in asked_again for run in runs(page, ["FAILURE"]) if run.is_to_be_split
    )


def tries_after(page: DagsterPage, run_id: str) -> list[str]:
    """How the tries ended that Dagster made of a run's work after it, one after the other."""
    next_of = {run.parent: run for run in runs(page)}
    ended: list[str] = []
    while again := next_of.get(run_id):
        ended.append(again.status)
        run_id = again.id
    return ended


def messages(page: DagsterPage, run_id: str) -> list[str]:
    """The log of a run."""
    events = page.query(_EVENTS, {"run": run_id})["runOrError"]["eventConnection"]["events"]
    return [event["message"] for event in events if event.get("message")]


def process_of(page: DagsterPage, run_id: str) -> int | None:
    """The id of the process that carries out a run, if it has begun to."""
    for message in messages(page, run_id):
        if begun := re.search(r"Started process for run \(pid: (\d+)\)", message):
            return int(begun[1])
    return None


def what_failed(page: DagsterPage) -> str:
    """The failed runs and the end of their logs, for the message of a failed test."""
    return "\n".join(
        f"{run}: {messages(page, run.id)[-10:]}" for run in runs(page, ["FAILURE", "CANCELED"])
    )
