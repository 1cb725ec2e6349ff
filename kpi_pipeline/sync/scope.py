"""What a run covers and does, in words that cost nothing to import."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum


class KpiAsset(StrEnum):
    """The three steps from Email Bison to the dashboard; each is named for the table it writes."""

    FACTS = "raw_bison_stats"
    PROJECTIONS = "kpi_projections"
    METRICS = "client_metrics"


@dataclass(frozen=True)
class BackfillScope:
    """The backfill that a run is a part of: when it was asked for, its first and last date."""

    asked_at: datetime
    first: date
    last: date


@dataclass(frozen=True)
class PartitionBlock:
    """Some clients × some consecutive dates: what one run covers.

    Dagster cuts a backfill of few dates into a run for each date, over all its clients. With
    `part_of`, the first of these runs to come to a client fetches the facts for all of them.
    """

    workspaces: Sequence[str]
    dates: Sequence[date]
    part_of: BackfillScope | None = None
