"""What a worker process is told to read, and what it tells of it: lines of JSON."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime

from pydantic import BaseModel, ConfigDict


class Reading(BaseModel):
    """The daily series of one client, `first` and `last` included."""

    model_config = ConfigDict(frozen=True)

    workspace: str
    first: date
    last: date


class Task(BaseModel):
    """Readings in their order, `at_once` of them side by side.

    After each one the worker pauses for up to `longest_pause` seconds, as a run that stores what
    it read before it reads on.
    """

    readings: Sequence[Reading]
    at_once: int = 1
    longest_pause: float = 0.0


class Outcome(BaseModel):
    """How one reading ended: with the counts of each day, or with the kind of trouble."""

    reading: Reading
    started_at: datetime
    ended_at: datetime
    days: Mapping[date, Mapping[str, int]] | None = None
    trouble: str | None = None
    error: str | None = None
