"""Requests for runs: what people ask for on the dashboard, and what came of it.

A page writes a request, and a sensor of Dagster's turns it into a run. Both know this table alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from enum import StrEnum

from sqlalchemy import Connection, func, insert, select, text, update

from kpi_pipeline.db.sync_log import SyncEntry, read_entries
from kpi_pipeline.db.tables import action_requests
from kpi_pipeline.domain.formatting import counted, listed


class Kind(StrEnum):
    """What is asked for: the latest days, or days that are missing."""

    REFRESH = "refresh"
    FILL = "fill"


class Status(StrEnum):
    """How far a request is. One that waits has no run yet."""

    WAITING = "waiting"
    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


_OPEN = (Status.WAITING, Status.STARTED)


@dataclass(frozen=True)
class ActionRequest:
    """A request to fetch these clients' days `first_date` … `last_date`, and to fill their rows.

    `message` is a sentence that says what came of it.
    """

    id: int
    kind: Kind
    workspaces: Sequence[str]
    first_date: date
    last_date: date
    requested_by: str
    requested_at: datetime
    status: Status
    run_id: str | None = None
    message: str | None = None
    ended_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether it waits for a run, or its run has not ended."""
        return self.status in _OPEN


@dataclass(frozen=True)
class Progress:
    """A request, how many of its clients its run has finished, and the error of each that failed.

    `labels` has the name of each client of the request.
    """

    request: ActionRequest
    done: int
    errors: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """The number of its clients."""
        return len(self.request.workspaces)


def request_run(
    connection: Connection,
    kind: Kind,
    workspaces: Sequence[str],
    first_date: date,
    last_date: date,
    *,
    requested_by: str,
    now: datetime,
) -> tuple[int, bool]:
    """Store a request, unless one of this kind and these clients is open: its id, and if it is new.

    Two that ask at the same moment get the same request.
    """
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('kpi:requests', 0))"))
    table = action_requests.c
    named = sorted(workspaces)
    found = connection.scalar(
        select(table.id).where(
            table.status.in_(_OPEN), table.kind == kind, table.workspaces == named
        )
    )
    if found is not None:
        return found, False
    statement = insert(action_requests).values(
        kind=kind,
        workspaces=named,
        first_date=first_date,
        last_date=last_date,
        requested_by=requested_by,
        requested_at=now,
    )
    return connection.execute(statement.returning(table.id)).scalar_one(), True


def read_request(connection: Connection, request_id: int) -> ActionRequest | None:
    """The request of this id."""
    found = _read(connection, action_requests.c.id == request_id)
    return found[0] if found else None


def open_requests(connection: Connection) -> list[ActionRequest]:
    """The requests that wait or are under way, the oldest first."""
    return _read(connection, action_requests.c.status.in_(_OPEN))


def latest_requests(connection: Connection, most: int) -> list[ActionRequest]:
    """The last requests, open or not, the latest first."""
    newest = select(action_requests.c.id).order_by(action_requests.c.id.desc()).limit(most)
    return _read(connection, action_requests.c.id.in_(newest))[::-1]


def progress_of(connection: Connection, requests: Sequence[ActionRequest]) -> list[Progress]:
    """How far each of these requests is."""
    run_ids = [it.run_id for it in requests if it.run_id is not None]
    entries = read_entries(connection, run_ids) if run_ids else []
    found = []
    for request in requests:
        own = [it for it in entries if it.run_id == request.run_id]
        errors = {it.workspace: it.error for it in own if it.error is not None}
        found.append(Progress(request, len({it.workspace for it in own}), errors))
    return found


def start_request(connection: Connection, request_id: int, run_id: str) -> None:
    """Note the run of a request, unless the request has ended."""
    connection.execute(
        update(action_requests)
        .where(action_requests.c.id == request_id, action_requests.c.status.in_(_OPEN))
        .where(action_requests.c.run_id.is_distinct_from(run_id))
        .values(status=Status.STARTED, run_id=run_id)
    )


def end_request(
    connection: Connection, request_id: int, status: Status, message: str, now: datetime
) -> None:
    """Note what came of a request, unless it has ended."""
    connection.execute(
        update(action_requests)
        .where(action_requests.c.id == request_id, action_requests.c.status.in_(_OPEN))
        # Of two clocks, this one may be behind.
        .values(
            status=status,
            message=message,
            ended_at=func.greatest(action_requests.c.requested_at, now),
        )
    )


def result_of(
    request: ActionRequest, entries: Sequence[SyncEntry], *, run_succeeded: bool
) -> tuple[Status, str]:
    """What came of a request whose run has ended: a sentence, from what the run logged."""
    errors = [it.error for it in entries if it.error is not None]
    total = len(request.workspaces)
    if errors:
        more = f" {listed(errors[1:], 2)}" if len(errors) > 1 else ""
        failed = "" if total == 1 else f"{len(errors)} of {counted(total, 'client')} failed. "
        return Status.FAILED, f"{failed}{errors[0]}{more}"
    if not run_succeeded:
        return Status.FAILED, (
            f"The run ended after {len(entries)} of {counted(total, 'client')}. Its page in "
            "Dagster says why."
        )
    skipped = sorted(set(request.workspaces) - {it.workspace for it in entries})
    if not entries:
        return Status.FAILED, f"{not_active(skipped)} Nothing was fetched."
    calls = counted(sum(it.api_calls for it in entries), "call")
    done = f"{counted(len(entries), 'client')} fetched with {calls}."
    return Status.SUCCEEDED, f"{done} {not_active(skipped)}".strip()


def not_active(workspaces: Sequence[str]) -> str:
    """A sentence that says which clients of a request were deactivated; empty without any."""
    if not workspaces:
        return ""
    verb = "is" if len(workspaces) == 1 else "are"
    return f"{listed(workspaces)} {verb} not active any more."


def _read(connection: Connection, condition: object) -> list[ActionRequest]:
    names = [it.name for it in fields(ActionRequest)]
    statement = (
        select(*(action_requests.c[name] for name in names))
        .where(condition)  # type: ignore[arg-type]
        .order_by(action_requests.c.id)
    )
    return [
        ActionRequest(**{**row, "kind": Kind(row["kind"]), "status": Status(row["status"])})
        for row in connection.execute(statement).mappings()
    ]
