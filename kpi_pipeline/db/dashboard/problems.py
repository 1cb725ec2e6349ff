"""Reads what the failing checks found about each client."""

from sqlalchemy import Connection

from kpi_pipeline.db.check_results import failing_checks
from kpi_pipeline.domain.client_problems import FailingCheck, Problem, problems_by_client


def read_problems(connection: Connection) -> dict[str, list[Problem]]:
    """The open problems of each client that has any, by workspace, errors first."""
    return problems_by_client(
        [
            FailingCheck(it.name, it.severity, it.offenders, it.clients, it.since)
            for it in failing_checks(connection)
        ]
    )
