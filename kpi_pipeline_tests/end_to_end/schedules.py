"""Holds schedules and sensors whose runs would come between those of a test or a benchmark."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kpi_pipeline.services.dagster_page import DagsterPage

_REPOSITORY = {"repositoryLocationName": "kpi_pipeline", "repositoryName": "__repository__"}
_SCHEDULES_OF_ROUNDS = ["data_checks", "daily_totals_check"]


def stop_schedules(page: DagsterPage) -> dict[str, str]:
    """Stop the schedules, whose runs would come between the tests'; return how they stood.

    And the sensor that has the checks done after each sync: a round after each run of each test is
    a process of its own.
    """
    query = """query ($selector: RepositorySelector!) {
        schedulesOrError(repositorySelector: $selector) { ... on Schedules {
            results { name scheduleState { id status } } } } }"""
    found = page.query(query, {"selector": _REPOSITORY})["schedulesOrError"]["results"]
    _stop(page, [schedule["name"] for schedule in found])
    return {schedule["name"]: schedule["scheduleState"]["status"] for schedule in found}


def stop_rounds(page: DagsterPage) -> None:
    """Stop the rounds of checks, which would find other things than those that a test does."""
    _stop(page, _SCHEDULES_OF_ROUNDS)


@contextmanager
def rounds_on(page: DagsterPage) -> Iterator[None]:
    """Have the rounds of checks done as in life, until the block ends."""
    for name in _SCHEDULES_OF_ROUNDS:
        start_schedule(page, name)
    start = """mutation ($selector: SensorSelector!) { startSensor(sensorSelector: $selector) {
        __typename } }"""
    _change(page, start, {"selector": _selector("sensorName", "check_after_sync")})
    try:
        yield
    finally:
        stop_rounds(page)


def start_schedule(page: DagsterPage, name: str) -> None:
    """Switch a schedule on, as its page does."""
    start = """mutation ($selector: ScheduleSelector!) { startSchedule(scheduleSelector: $selector)
        { __typename } }"""
    _change(page, start, {"selector": _selector("scheduleName", name)})


def stop_schedule(page: DagsterPage, name: str) -> None:
    """Switch a schedule off, as its page does."""
    query = """query ($selector: ScheduleSelector!) { scheduleOrError(scheduleSelector: $selector) {
        ... on Schedule { scheduleState { id } } } }"""
    stop = "mutation ($id: String!) { stopRunningSchedule(id: $id) { __typename } }"
    found = page.query(query, {"selector": _selector("scheduleName", name)})["scheduleOrError"]
    _change(page, stop, {"id": found["scheduleState"]["id"]})


def _stop(page: DagsterPage, schedules: Sequence[str]) -> None:
    for name in schedules:
        stop_schedule(page, name)
    query = """query ($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
        ... on Sensor { sensorState { id } } } }"""
    stop = "mutation ($id: String) { stopSensor(id: $id) { __typename } }"
    selector = _selector("sensorName", "check_after_sync")
    found = page.query(query, {"selector": selector})["sensorOrError"]
    _change(page, stop, {"id": found["sensorState"]["id"]})


def _change(page: DagsterPage, mutation: str, variables: dict[str, Any]) -> None:
    (answer,) = page.query(mutation, variables).values()
    assert not answer["__typename"].endswith("Error"), answer


def _selector(kind: str, name: str) -> dict[str, str]:
    return {**_REPOSITORY, kind: name}
