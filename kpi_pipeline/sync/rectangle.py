"""What a run covers and does, in words that cost nothing to import."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum


class Step(StrEnum):
    """The three steps from Email Bison to the dashboard; each is named for the table it writes."""

    FACTS = "raw_bison_stats"
    PROJECTIONS = "kpi_projections"
    METRICS = "client_metrics"


@dataclass(frozen=True)
class Rectangle:
    """Some clients × some consecutive dates: what one run covers."""

    workspaces: Sequence[str]
    dates: Sequence[date]
