from dataclasses import dataclass, field
from datetime import date
from zoneinfo import ZoneInfo

from bison_sandbox.faults import Fault
from bison_sandbox.variants import Variants

MOST_CLIENTS = 10_000
HIGHEST_FIRST_ID = 1_000_000_000
HIGHEST_PACE = 100_000


class SandboxError(Exception):
    """The sandbox can't start as asked; the message is a sentence that says what to change."""


@dataclass(frozen=True)
class SandboxOptions:
    """What a sandbox is started with.

    `port` 0 takes any free one. `clients` is the number of workspaces at the start, and with
    `seed` fixes the whole estate. `calls_per_second` is what the one bottleneck of the instance
    lets through, 0 for no limit; `latency` is the mean of the seconds that a call takes beside
    it, 0 for none. `today` is the day that the sandbox takes for today when it starts, at the
    real time of day; None is the real date. `timezone` bounds a day. With a `first_workspace_id`
    the ids are that one and those that follow it; None draws ids with gaps. `variants` and
    `faults` are those at the start. A `live` sandbox marks leads interested by itself, `live_pace`
    times as many as in a real agency of its size.

    Raises SandboxError for a value out of range.
    """

    host: str = "127.0.0.1"
    port: int = 8025
    clients: int = 26
    seed: int = 7
    calls_per_second: float = 9.5
    latency: float = 0.25
    today: date | None = None
    timezone: str = "America/Chicago"
    first_workspace_id: int | None = None
    variants: Variants = field(default_factory=Variants)
    faults: tuple[Fault, ...] = ()
    live: bool = False
    live_pace: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise SandboxError(f"The port must be between 0 and 65535, not {self.port}.")
        if not 1 <= self.clients <= MOST_CLIENTS:
            raise SandboxError(
                f"The number of clients must be between 1 and {MOST_CLIENTS}, not {self.clients}."
            )
        first_id = self.first_workspace_id
        if first_id is not None and not 1 <= first_id <= HIGHEST_FIRST_ID:
            raise SandboxError(
                f"The first workspace id must be between 1 and {HIGHEST_FIRST_ID}, not {first_id}."
            )
        if self.calls_per_second < 0:
            raise SandboxError("The calls per second must be 0 (no limit) or more.")
        if self.latency < 0:
            raise SandboxError("The latency must be 0 (none) or more seconds.")
        if not 0 < self.live_pace <= HIGHEST_PACE:
            raise SandboxError(
                f"The live pace must be above 0 and at most {HIGHEST_PACE}, not {self.live_pace:g}."
            )
        try:
            ZoneInfo(self.timezone)
        except (KeyError, OSError, ValueError) as error:
            raise SandboxError(
                f"There is no time zone {self.timezone!r}: give one as Area/City, for example "
                "America/Chicago."
            ) from error
