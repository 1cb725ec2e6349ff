"""Email Bison over HTTP: paced, retried, verified calls, and answers that are whole or an error."""

from kpi_pipeline.bison.call_count import CallCount, counted_calls
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
    Workspace,
    WorkspaceRef,
)
from kpi_pipeline.bison.pacing import InProcessPacing
from kpi_pipeline.bison.ports import MasterKeyLock, Pacing
from kpi_pipeline.bison.reader import WorkspaceReader

__all__ = [
    "BisonClient",
    "BisonError",
    "BisonInstance",
    "CallCount",
    "ClientOptions",
    "DailySeries",
    "DayCounts",
    "InProcessPacing",
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
    "Unavailable",
    "Workspace",
    "WorkspaceGone",
    "WorkspaceReader",
    "WorkspaceRef",
    "WrongWorkspace",
    "counted_calls",
]
