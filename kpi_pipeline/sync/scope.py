"""Scope of a run. Import-light: no pandas, no SQLAlchemy."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum


class KpiAsset(StrEnum):
    """The three assets from Email Bison to the dashboard; each is named for the table it writes."""

    FACTS = "raw_bison_stats"
    PROJECTIONS = "kpi_projections"
    METRICS = "client_metrics"


@dataclass(frozen=True)
class BackfillScope:
    """Request time and full date range of the backfill that a run belongs to."""

    requested_at: datetime
    first: date
    last: date


@dataclass(frozen=True)
class PartitionBlock:
    """Some workspaces × some consecutive dates: what one run covers.

    Dagster may split a backfill of few dates into one run per date, each for all its clients.
    `backfill` is then set, and the first of these runs to reach a client fetches the facts of the
    full date range.

    Today's sending plan is not requested again while the last request is younger than
    `plan_max_age`.
    """

    workspaces: Sequence[str]
    dates: Sequence[date]
    backfill: BackfillScope | None = None
    plan_max_age: timedelta = timedelta(0)
