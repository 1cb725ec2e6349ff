"""Whether alerts go out: they are evaluated, and their receivers accept messages.

Alerts cannot report their own failure. `kpi status`, `GET /freshness` of the gateway and the
heartbeat of the checks do, from these tables alone; the other receivers are alerted to a receiver
that accepts nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection

from kpi_pipeline.db.alert_evaluations import last_evaluation
from kpi_pipeline.db.alerts import read_failing
from kpi_pipeline.domain.formatting import duration

# The sensor evaluates every 30 s; a restart of Dagster's daemon, or many sensors, delay it.
_EVALUATION_MAY_BE_LATE = timedelta(minutes=10)
# A receiver that fails is tried again after 30 s, and after ever longer pauses up to 5 minutes.
_RECEIVER_MAY_FAIL = timedelta(minutes=10)


class AlertingKind(StrEnum):
    """What is wrong with the alerts."""

    NOT_EVALUATED = "not_evaluated"
    NOT_ACCEPTED = "not_accepted"


@dataclass(frozen=True)
class AlertingProblem:
    """Alerts do not go out, to one receiver or to all, since `since`.

    `text` is a sentence with what to do. `receiver` names the one that accepts nothing, and is
    None where alerts are not evaluated at all.
    """

    kind: AlertingKind
    text: str
    since: datetime | None
    receiver: str | None = None


def alerting_problems(connection: Connection, now: datetime) -> list[AlertingProblem]:
    """Why alerts do not go out at `now`; empty if they do. Reads two small tables."""
    return [*_not_evaluated(connection, now), *_not_accepted(connection, now)]


def _not_evaluated(connection: Connection, now: datetime) -> Iterator[AlertingProblem]:
    last = last_evaluation(connection)
    if last is None or now - last > _EVALUATION_MAY_BE_LATE:
        age = "" if last is None else f" for {duration(now - last)}"
        yield AlertingProblem(
            AlertingKind.NOT_EVALUATED,
            f"Alerts have not been evaluated{age}, so nobody is alerted to anything. Check that "
            "`kpi up` runs, and the last tick of alert_sensor on the page Automation.",
            last,
        )


def _not_accepted(connection: Connection, now: datetime) -> Iterator[AlertingProblem]:
    for name, it in read_failing(connection).items():
        failing = now - it.failing_since
        if failing > _RECEIVER_MAY_FAIL:
            yield AlertingProblem(
                AlertingKind.NOT_ACCEPTED,
                f"The receiver {name} has accepted no alert for {duration(failing)}, in "
                f"{it.tries} tries. `kpi alerts test` tries it now; its address is in "
                "KPI_ALERT_URLS.",
                it.failing_since,
                name,
            )
