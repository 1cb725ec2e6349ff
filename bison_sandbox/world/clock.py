"""Business dates, and the clock of the sandbox."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo


def utc_now() -> datetime:
    """The real instant, in UTC."""
    return datetime.now(UTC)


def timestamp(instant: datetime) -> str:
    """An instant as the vendor writes it: `2025-04-14T16:59:21.000000Z`."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000000Z")


@dataclass(frozen=True)
class Days:
    """Business dates of one time zone."""

    zone: ZoneInfo

    def date_of(self, instant: datetime) -> date:
        """The business date of an instant."""
        return instant.astimezone(self.zone).date()

    def moment(self, day: date, fraction: float) -> datetime:
        """The instant, in UTC, at which this fraction (0 to 1) of a business date has passed."""
        start, end = self._bounds(day)
        return start + fraction * (end - start)

    def fraction_passed(self, instant: datetime) -> float:
        """How much of its business date has passed at this instant, from 0 to 1."""
        start, end = self._bounds(self.date_of(instant))
        return (instant - start) / (end - start)

    def _bounds(self, day: date) -> tuple[datetime, datetime]:
        """The first instant of a business date and of the next: 23, 24 or 25 hours apart."""
        start = datetime.combine(day, time(), self.zone)
        end = datetime.combine(day + timedelta(days=1), time(), self.zone)
        return start.astimezone(UTC), end.astimezone(UTC)


class Clock:
    """The sandbox's time: the real time of day, on any chosen date; it can be frozen.

    `today` is the business date to start on, None for the real one. `real_now` returns the real
    instant, timezone-aware.
    """

    def __init__(
        self,
        zone: ZoneInfo,
        today: date | None = None,
        real_now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.zone = zone
        self.days = Days(zone)
        self._real_now = real_now
        self._frozen: datetime | None = None
        real_day = real_now().astimezone(zone).date()
        self._days_ahead = (today or real_day) - real_day

    def now(self) -> datetime:
        """The sandbox's instant, in UTC."""
        return self.running() if self._frozen is None else self._frozen

    def running(self) -> datetime:
        """The instant, in UTC, of the clock if it were not frozen."""
        # Shift the local time, not the instant: a daylight-saving change between the two days must
        # not change the time of day.
        local = self._real_now().astimezone(self.zone)
        return (local + self._days_ahead).astimezone(UTC)

    def freeze(self, instant: datetime | None) -> None:
        """Freeze at this timezone-aware instant; None lets the clock run again."""
        self._frozen = None if instant is None else instant.astimezone(UTC)

    def today(self) -> date:
        """The business date of now, in the sandbox's own zone."""
        return self.days.date_of(self.now())
