"""Email Bison over HTTP: paced, retried, verified calls, and answers that are whole or an error."""

from kpi_pipeline.bison.call_stats import CallStats, counting_calls
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
    Webhook,
    Workspace,
    WorkspaceRef,
)
from kpi_pipeline.bison.protocols import MasterKeyLock, Pacing
from kpi_pipeline.bison.reader import WorkspaceReader

__all__ = [
    "BisonClient",
    "BisonError",
    "BisonInstance",
    "CallStats",
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
    "Unavailable",
    "Webhook",
    "Workspace",
    "WorkspaceGone",
    "WorkspaceReader",
    "WorkspaceRef",
    "WrongWorkspace",
    "counting_calls",
]
