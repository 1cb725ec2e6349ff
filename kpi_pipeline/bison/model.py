"""What the client takes and returns: plain values, no HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Generic, TypeVar

from pydantic import SecretStr

T = TypeVar("T")


@dataclass(frozen=True)
class BisonInstance:
    """One Email Bison server: its name in our registry, its address, and its super-admin key."""

    name: str
    base_url: str
    master_key: SecretStr | None


@dataclass(frozen=True)
class WorkspaceRef:
    """A client: its workspace (our slug), and its (instance, id) in Email Bison."""

    workspace: str
    instance: str
    bison_workspace_id: int


@dataclass(frozen=True)
class Workspace:
    """A workspace as Email Bison lists it. The name is a label, trimmed; the id is the identity."""

    id: int
    name: str


@dataclass(frozen=True)
class Webhook:
    """A webhook of a workspace. The URL is a secret: it is all that a sender needs."""

    id: int
    name: str
    url: SecretStr
    events: frozenset[str]


@dataclass(frozen=True)
class DayCounts:
    """What happened in one workspace on one day, in events.

    Opens are None where the answer leaves them out; no number is computed from them.
    """

    sent: int
    replied: int
    interested: int
    bounced: int
    unsubscribed: int
    total_opens: int | None
    unique_opens: int | None


@dataclass(frozen=True)
class DailySeries:
    """The counts of each day of a period.

    `as_of` is the moment (UTC) just before the request was sent, the earliest one if the period
    took several. `days` has every day of the period. `unlisted` are the parts of the period, first
    and last day, for which the answer lists no day at all: either nothing happened, or the answer
    is wrong.
    """

    as_of: datetime
    days: Mapping[date, DayCounts]
    unlisted: Sequence[tuple[date, date]] = ()


@dataclass(frozen=True)
class PeriodStats:
    """Email Bison's own totals of a period; `replied` counts a contact once."""

    emails_sent: int
    interested: int
    bounced: int
    unsubscribed: int
    replied: int


class KeyUse(StrEnum):
    """Which API key was used: the workspace's own, or the instance's super-admin key."""

    WORKSPACE = "workspace"
    MASTER = "master"


@dataclass
class Reading(Generic[T]):
    """What was read, with which kind of API key, and how many HTTP requests that took."""

    value: T
    key_used: KeyUse
    calls: int


@dataclass(frozen=True)
class ClientOptions:
    """Limits of the client.

    `timeout_seconds` bounds one try, from connecting to the last byte; `attempts` is the number of
    tries in all; `switch_timeout_seconds` is how long a switched master key may take to act in its
    new workspace before it is switched again; `series_max_days` is the number of days that one call
    for the daily series asks for.
    """

    timeout_seconds: float = 60.0
    attempts: int = 5
    switch_timeout_seconds: float = 5.0
    series_max_days: int = 400
