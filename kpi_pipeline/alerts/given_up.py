"""The problems that `kpi up` gave a part up: it ended too often, and only a person starts it."""

from kpi_pipeline.alerts.problem import Problem
from kpi_pipeline.checks.outcome import Severity
from kpi_pipeline.parts import Parts


def given_up_problems(parts: Parts | None) -> list[Problem]:
    """A problem for each part that the running `kpi up` gave up.

    If the part is one that alerts need, such as Dagster's daemon, nobody gets them: for this, there
    are the heartbeats.
    """
    if parts is None or not parts.is_supervised:
        return []
    return [
        Problem(
            cause=f"part {it.key}",
            name=f"part_{it.key}",
            title=f"{it.name} does not run",
            severity=Severity.ERROR,
            since=it.since,
            what=f"`{parts.command}` started it again and again, and gave it up: {it.name} "
            f"{it.reason}. Its log in the folder logs of KPI_STATE_DIR says why; fix that, and "
            f"start `{parts.command}` again.",
        )
        for it in parts.given_up
    ]
