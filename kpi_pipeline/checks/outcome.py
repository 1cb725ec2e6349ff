"""Result of a check: whether it passed, who is affected, and what to do about it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

UNANSWERED = "unanswered"
# How `registry_matches_bison` names clients whose key or webhooks could not be read.
_UNCHECKED = {"unchecked keys", "unchecked webhooks"}

# How many rows Dagster's table, a message and the stored outcome show; the rest is counted.
MAX_PROBLEMS = 50


class Severity(StrEnum):
    """How bad it is."""

    WARN = "WARN"
    ERROR = "ERROR"


class Check(StrEnum):
    """The checks, by the names that people see and mute."""

    FRESHNESS = "freshness"
    COMPLETE = "complete"
    PLAUSIBLE = "plausible"
    SENDING_PACE = "sending_pace"
    REPLY_RATE = "reply_rate"
    ROWS_MATCH_INPUTS = "rows_match_inputs"
    AUTOMATION_ALIVE = "automation_alive"
    NO_MISSING_DAYS = "no_missing_days"
    TOTALS_MATCH_BISON = "totals_match_bison"
    WEBHOOKS_DELIVERED = "webhooks_delivered"
    EVENTS_APPLIED = "events_applied"
    BISON_DAYS_MEASURED = "bison_days_measured"
    REGISTRY_MATCHES_BISON = "registry_matches_bison"


# These call Email Bison; all others query the database alone.
ASKING_BISON = (Check.TOTALS_MATCH_BISON, Check.REGISTRY_MATCHES_BISON)

# The columns of a problem's row that name its client: a workspace of ours, or an unregistered one.
CLIENT_COLUMNS = ("workspace", "client")

# A row of the check's table: column → value.
ProblemRow = Mapping[str, str | int | float | None]


@dataclass(frozen=True)
class Outcome:
    """Result of one check.

    `problems` holds the rows of what is wrong, worst first, at most MAX_PROBLEMS; `more` counts
    the rows beyond those, and `clients` names every client affected, shown or not. A check without
    problems has passed. `numbers` are counts to plot.
    """

    check: Check
    description: str
    severity: Severity = Severity.WARN
    problems: Sequence[ProblemRow] = ()
    more: int = 0
    clients: Sequence[str] = ()
    numbers: Mapping[str, int] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether there are no problems."""
        return not self.problems


def outcome(
    check: Check,
    problems: Sequence[ProblemRow],
    *,
    if_passed: str,
    if_failed: str,
    severity: Severity,
    numbers: Mapping[str, int] | None = None,
) -> Outcome:
    """Build an outcome: the description that fits, and no more rows than are shown."""
    return Outcome(
        check,
        if_failed if problems else if_passed,
        severity if problems else Severity.WARN,
        problems[:MAX_PROBLEMS],
        max(len(problems) - MAX_PROBLEMS, 0),
        clients_of(problems),
        numbers or {},
    )


def client_of(row: Mapping[str, object]) -> str | None:
    """The client that a problem's row names, if any."""
    found = next((row[name] for name in CLIENT_COLUMNS if row.get(name)), None)
    return None if found is None else str(found)


def clients_of(rows: Iterable[Mapping[str, object]]) -> list[str]:
    """The clients that the rows name, each once, in the order of the rows."""
    return list(dict.fromkeys(it for row in rows if (it := client_of(row)) is not None))


def has_unanswered(problems: Sequence[Mapping[str, object]]) -> bool:
    """Whether Email Bison left a question of the check unanswered, so that it is asked again."""
    return any(map(_is_unanswered, problems))


def all_unanswered(problems: Sequence[Mapping[str, object]]) -> bool:
    """Whether the only problem is that Email Bison did not answer."""
    return bool(problems) and all(map(_is_unanswered, problems))


def _is_unanswered(row: Mapping[str, object]) -> bool:
    return bool(({UNANSWERED} | _UNCHECKED) & {row.get("kind"), row.get("count")})
