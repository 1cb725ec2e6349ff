"""Stops the schedules whose runs would come between those of a test or a benchmark."""

from kpi_pipeline.orchestration.runtime import LOCATION
from kpi_pipeline.services.dagster_page import DagsterPage

_REPOSITORY = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__"}
_FOUND = """query ($repository: RepositorySelector!, $sensor: SensorSelector!) {
    schedulesOrError(repositorySelector: $repository) { ... on Schedules {
        results { name scheduleState { id status } } } }
    sensorOrError(sensorSelector: $sensor) { ... on Sensor { sensorState { id } } } }"""
_STOP_SCHEDULE = "mutation ($id: String!) { stopRunningSchedule(id: $id) { __typename } }"
_STOP_SENSOR = "mutation ($id: String) { stopSensor(id: $id) { __typename } }"


def stop_schedules(page: DagsterPage) -> dict[str, str]:
    """Stop the schedules, and the sensor that starts checks after each sync.

    Returns the status that each schedule had.
    """
    sensor = {**_REPOSITORY, "sensorName": "check_after_sync"}
    found = page.query(_FOUND, {"repository": _REPOSITORY, "sensor": sensor})
    schedules = found["schedulesOrError"]["results"]
    for schedule in schedules:
        _stop(page, _STOP_SCHEDULE, schedule["scheduleState"]["id"])
    _stop(page, _STOP_SENSOR, found["sensorOrError"]["sensorState"]["id"])
    return {schedule["name"]: schedule["scheduleState"]["status"] for schedule in schedules}


def _stop(page: DagsterPage, mutation: str, state: str) -> None:
    (answer,) = page.query(mutation, {"id": state}).values()
    assert not answer["__typename"].endswith("Error"), answer
