"""What a check found: whether all is well, and else who is concerned and what to do about it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

UNANSWERED = "unanswered"
# As the check `registry_matches_bison` names it where a key's owner could not be asked for.
_UNCHECKED_KEYS = "unchecked keys"


def lacks_answers(offenders: Sequence[Mapping[str, object]]) -> bool:
    """Whether something is to be asked again."""
    return any(map(_is_unanswered, offenders))


def lacks_only_answers(offenders: Sequence[Mapping[str, object]]) -> bool:
    """Whether all that is wrong is that Email Bison did not answer."""
    return bool(offenders) and all(map(_is_unanswered, offenders))


def _is_unanswered(row: Mapping[str, object]) -> bool:
    return bool({UNANSWERED, _UNCHECKED_KEYS} & {row.get("kind"), row.get("count")})


# What the page's table, a message and the stored outcome show; how many more there are is told.
MOST_OFFENDERS = 50


class Severity(StrEnum):
    """How bad it is."""

    WARN = "WARN"
    ERROR = "ERROR"


class Check(StrEnum):
    """The checks, by the names that people see and mute."""

    FRESHNESS = "freshness"
    COMPLETE = "complete"
    PLAUSIBLE = "plausible"
    AUTOMATION_ALIVE = "automation_alive"
    NO_MISSING_DAYS = "no_missing_days"
    TOTALS_MATCH_BISON = "totals_match_bison"
    WEBHOOKS_DELIVERED = "webhooks_delivered"
    EVENTS_APPLIED = "events_applied"
    REGISTRY_MATCHES_BISON = "registry_matches_bison"


# These call Email Bison; all others ask the database alone.
ASKING_BISON = (Check.TOTALS_MATCH_BISON, Check.REGISTRY_MATCHES_BISON)

# Where an offender's row names its client, if it does: by the key, or what a stranger is known by.
CLIENT_COLUMNS = ("workspace", "client")

# A row of the check's table.
Offender = Mapping[str, str | int | float | None]


@dataclass(frozen=True)
class Outcome:
    """What a check found.

    `offenders` are the rows of those in trouble, the worst first, at most MOST_OFFENDERS; `more`
    is how many other rows there are, and `clients` are all whom the rows name, those others too.
    Without any, the check has passed. `numbers` are counts to plot.
    """

    check: Check
    description: str
    severity: Severity = Severity.WARN
    offenders: Sequence[Offender] = ()
    more: int = 0
    clients: Sequence[str] = ()
    numbers: Mapping[str, int] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether nobody is in trouble."""
        return not self.offenders


def outcome(
    check: Check,
    offenders: Sequence[Offender],
    *,
    well: str,
    trouble: str,
    severity: Severity,
    numbers: Mapping[str, int] | None = None,
) -> Outcome:
    """What the check found, with the sentence that fits, and no more rows than are shown."""
    return Outcome(
        check,
        trouble if offenders else well,
        severity if offenders else Severity.WARN,
        offenders[:MOST_OFFENDERS],
        max(len(offenders) - MOST_OFFENDERS, 0),
        clients_of(offenders),
        numbers or {},
    )


def client_of(row: Mapping[str, object]) -> str | None:
    """The client whom an offender's row names, if it names one."""
    found = next((row[name] for name in CLIENT_COLUMNS if row.get(name)), None)
    return None if found is None else str(found)


def clients_of(rows: Iterable[Mapping[str, object]]) -> list[str]:
    """All whom the rows name, each once, in the rows' order."""
    return list(dict.fromkeys(it for row in rows if (it := client_of(row)) is not None))
