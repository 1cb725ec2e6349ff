"""Holds the schedules, whose runs would come between those of a test or a benchmark."""

from kpi_pipeline.cli.dagster_page import DagsterPage


def stop_schedules(page: DagsterPage) -> dict[str, str]:
    """Stop the schedules, whose runs would come between the tests'; return how they stood."""
    selector = {"repositoryLocationName": "kpi_pipeline", "repositoryName": "__repository__"}
    query = """query ($selector: RepositorySelector!) {
        schedulesOrError(repositorySelector: $selector) { ... on Schedules {
            results { name scheduleState { id status } } } } }"""
    stop = """mutation ($id: String!) { stopRunningSchedule(id: $id) { __typename } }"""
    schedules = page.query(query, {"selector": selector})["schedulesOrError"]["results"]
    for schedule in schedules:
        page.query(stop, {"id": schedule["scheduleState"]["id"]})
    return {schedule["name"]: schedule["scheduleState"]["status"] for schedule in schedules}
