"""The problems that a receiver of alerts accepts nothing: told to the others."""

from collections.abc import Collection, Iterable

from kpi_pipeline.alerts.problem import Problem
from kpi_pipeline.checks.alerting import AlertingProblem
from kpi_pipeline.checks.outcome import Severity

# What people mute, whichever receiver fails.
NAME = "alert_receivers"


def receiver_problems(
    found: Iterable[AlertingProblem], receivers: Collection[str]
) -> list[Problem]:
    """A problem for each of these receivers that accepts nothing, if there are others to tell."""
    if len(receivers) < 2:
        return []
    return [
        Problem(
            cause=f"receiver {it.receiver}",
            name=NAME,
            title=f"the receiver {it.receiver} accepts no alerts",
            severity=Severity.ERROR,
            since=it.since,
            what=f"{it.text} Who reads it there misses every alert until then.",
            not_to=it.receiver or "",
        )
        for it in found
        if it.receiver in receivers and it.since is not None
    ]
