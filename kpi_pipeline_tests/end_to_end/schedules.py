"""Holds the schedules, whose runs would come between those of a test or a benchmark."""

from kpi_pipeline.cli.dagster_page import DagsterPage


def stop_schedules(page: DagsterPage) -> dict[str, str]:
    """Stop the schedules, whose runs would come between the tests'; return how they stood.

    And the sensor that has the checks done after each sync: a round after each run of each test is
    a process of its own.
    """
    selector = {"repositoryLocationName": "kpi_pipeline", "repositoryName": "__repository__"}
    query = """query ($selector: RepositorySelector!) {
        schedulesOrError(repositorySelector: $selector) { ... on Schedules {
            results { name scheduleState { id status } } } } }"""
    stop = """mutation ($id: String!) { stopRunningSchedule(id: $id) { __typename } }"""
    schedules = page.query(query, {"selector": selector})["schedulesOrError"]["results"]
    sensor = {**selector, "sensorName": "check_after_sync"}
    query = """query ($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
        ... on Sensor { sensorState { id } } } }"""
    found = page.query(query, {"selector": sensor})["sensorOrError"]["sensorState"]
    page.query("mutation ($id: String) { stopSensor(id: $id) { __typename } }", {"id": found["id"]})
    for schedule in schedules:
        page.query(stop, {"id": schedule["scheduleState"]["id"]})
    return {schedule["name"]: schedule["scheduleState"]["status"] for schedule in schedules}
