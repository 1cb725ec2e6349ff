"""What was measured of how Email Bison counts: the last findings, and the last series read."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from kpi_pipeline.db.tables import (
    bison_findings,
    bison_series_readings,
    client_targets,
    raw_bison_stats,
)
from kpi_pipeline.domain.measure import Series, Subject


@dataclass(frozen=True)
class Finding:
    """The answer to one question about an instance.

    `possible` and `evidence` are those of the last comparison, at `measured_at` with the events of
    `workspace`. `value` is the last answer that was decided, if any, and `before` the one that it
    replaced at `changed_at`.
    """

    instance: str
    subject: Subject
    workspace: str
    measured_at: datetime
    possible: Sequence[str]
    evidence: str
    value: str | None = None
    before: str | None = None
    changed_at: datetime | None = None


def read_findings(connection: Connection) -> list[Finding]:
    """All findings, by instance and subject."""
    statement = select(bison_findings).order_by("instance", "subject")
    rows = connection.execute(statement).mappings()
    return [Finding(**{**row, "subject": Subject(row["subject"])}) for row in rows]


def possible_day_zones(connection: Connection, instance: str) -> list[str]:
    """The zones that may bound the instance's days: the measured one, or those not ruled out.

    None are known before the first measurement, and where no zone fits.
    """
    row = bison_findings.c
    found = connection.execute(
        select(row.possible, row.value).where(
            row.instance == instance, row.subject == Subject.DAY_ZONE
        )
    ).one_or_none()
    if found is None:
        return []
    return [found.value] if found.value in found.possible else list(found.possible)


def store_findings(connection: Connection, findings: Collection[Finding]) -> None:
    """Store findings of a comparison; the `value` of one that decided nothing is None.

    Then the answer that was decided before stays. A day that was revised once may be revised again,
    so of that age the largest is kept.
    """
    known = {(it.instance, it.subject): it for it in read_findings(connection)}
    for finding in findings:
        row = vars(_following(known.get((finding.instance, finding.subject)), finding))
        statement = insert(bison_findings).values(row)
        connection.execute(
            statement.on_conflict_do_update(index_elements=["instance", "subject"], set_=row)
        )


def activity(connection: Connection, since: date) -> dict[str, tuple[int, int]]:
    """Of each client, the leads of the days from `since` on, and the largest sending target."""
    facts, targets = raw_bison_stats.c, client_targets.c
    leads = select(facts.workspace, func.sum(facts.interested)).where(facts.date >= since)
    goals = select(targets.workspace, func.max(targets.monthly_sending_target))
    found: dict[str, tuple[int, int]] = {}
    for workspace, goal in connection.execute(goals.group_by(targets.workspace)):
        found[workspace] = 0, int(goal or 0)
    for workspace, number in connection.execute(leads.group_by(facts.workspace)):
        found[workspace] = int(number or 0), found.get(workspace, (0, 0))[1]
    return found


def read_series(connection: Connection, workspace: str) -> tuple[date, Series] | None:
    """The series that was last read for a comparison, and the date on which it was."""
    table = bison_series_readings
    row = connection.execute(select(table).where(table.c.workspace == workspace)).mappings().first()
    if row is None:
        return None
    return row["read_on"], {date.fromisoformat(day): it for day, it in row["days"].items()}


def store_series(connection: Connection, workspace: str, read_on: date, series: Series) -> None:
    """Keep the series for the next comparison, in place of the one before."""
    days: Mapping[str, object] = {day.isoformat(): dict(it) for day, it in series.items()}
    row = {"workspace": workspace, "read_on": read_on, "days": days}
    statement = insert(bison_series_readings).values(row)
    connection.execute(statement.on_conflict_do_update(index_elements=["workspace"], set_=row))


def _following(known: Finding | None, new: Finding) -> Finding:
    """The finding to store after the known one."""
    if known is None or known.value is None:
        return new
    values = vars(new) | {"before": known.before, "changed_at": known.changed_at}
    if new.subject is Subject.REVISED_AGE:
        return Finding(**values | {"value": str(max(int(known.value), int(new.value or 0)))})
    if new.value is None or new.value == known.value:
        return Finding(**values | {"value": known.value})
    return Finding(**values | {"before": known.value, "changed_at": new.measured_at})
