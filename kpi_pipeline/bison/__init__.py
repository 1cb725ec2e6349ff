"""Email Bison over HTTP: paced, retried, verified calls, and answers that are whole or an error."""

from kpi_pipeline.bison.client import BisonClient
from kpi_pipeline.bison.errors import (
    BisonError,
    MalformedAnswer,
    MissingKey,
    RateLimited,
    RefusedRequest,
    RejectedKey,
    Unavailable,
    WorkspaceGone,
    WrongWorkspace,
)
from kpi_pipeline.bison.model import (
    BisonInstance,
    ClientOptions,
    DailySeries,
    DayCounts,
    KeyUse,
    PeriodStats,
    Reading,
    Reply,
    Webhook,
    Workspace,
    WorkspaceRef,
)
from kpi_pipeline.bison.ports import MasterKeyLock, Pacing
from kpi_pipeline.bison.reader import WorkspaceReader
from kpi_pipeline.bison.tally import CallTally, tallied

__all__ = [
    "BisonClient",
    "BisonError",
    "BisonInstance",
    "CallTally",
    "ClientOptions",
    "DailySeries",
    "DayCounts",
    "KeyUse",
    "MalformedAnswer",
    "MasterKeyLock",
    "MissingKey",
    "Pacing",
    "PeriodStats",
    "RateLimited",
    "Reading",
    "RefusedRequest",
    "RejectedKey",
    "Reply",
    "Unavailable",
    "Webhook",
    "Workspace",
    "WorkspaceGone",
    "WorkspaceReader",
    "WorkspaceRef",
    "WrongWorkspace",
    "tallied",
]
