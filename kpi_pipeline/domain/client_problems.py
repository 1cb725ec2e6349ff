"""What checks found about a client, as sentences for the people who run the agency."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

ProblemRow = Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """What a failing check found about one client.

    `check` is its name, `severity` WARN or ERROR, and `since` when the check began to fail.
    """

    check: str
    severity: str
    text: str
    since: datetime | None


@dataclass(frozen=True)
class FailingCheck:
    """A check that fails: its first rows, and all clients that it concerns."""

    name: str
    severity: str
    rows: Sequence[ProblemRow]
    clients: Sequence[str]
    since: datetime | None


def problems_by_client(checks: Sequence[FailingCheck]) -> dict[str, list[Problem]]:
    """The problems of each client that has any, errors first; a sentence for each check.

    A client beyond the rows that a check stores has a problem as well, with a sentence for all.
    """
    found: dict[str, list[Problem]] = {}
    for check in sorted(checks, key=lambda it: (it.severity != "ERROR", it.name)):
        first: dict[str, ProblemRow] = {}
        for row in check.rows:
            if client := row.get("workspace") or row.get("client"):
                first.setdefault(str(client), row)
        for client in dict.fromkeys([*first, *check.clients]):
            text = _sentence(check.name, first.get(client))
            found.setdefault(client, []).append(
                Problem(check.name, check.severity, text, check.since)
            )
    return found


def _sentence(check: str, row: ProblemRow | None) -> str:
    text = "" if row is None else sentence_of(check, row)
    text = text or _OF_ALL.get(check, f"The check {check} fails")
    return text[:1].upper() + text[1:]


def sentence_of(check: str, row: ProblemRow) -> str:
    """What a row of a check's table says, as a sentence; "" where it says nothing in words."""
    return " ".join(_described(row, _SENTENCES.get(check))).strip()


def _described(row: ProblemRow, describe: Callable[[ProblemRow], str] | None) -> Iterator[str]:
    yield describe(row) if describe else str(row.get("problem") or "")
    if row.get("date") and describe is None:
        yield f"on {row['date']}"


def _missing(what: str) -> Callable[[ProblemRow], str]:
    def describe(row: ProblemRow) -> str:
        missing, days = str(row.get("missing", "")), row.get("days")
        if missing[:1].isdigit():
            return f"{what} of {missing} missing ({days} day{'' if days == 1 else 's'})"
        return missing

    return describe


def _differing(row: ProblemRow) -> str:
    place = f"{row.get('column')} of {row.get('date')}"
    return f"{place} is {row.get('stored')}, and should be {row.get('expected')}"


def _total(row: ProblemRow) -> str:
    count = str(row.get("count"))
    if row.get("why"):
        return f"totals of Email Bison are unknown: {row['why']}"
    whole = f"{row.get('bison')} {'needed' if count.startswith('days') else 'in Email Bison'}"
    return f"this month's {count}: {row.get('ours')} here, {whole}"


def _event(row: ProblemRow) -> str:
    reason = f": {row['reason']}" if row.get("reason") else ""
    return f"an event is {row.get('problem')}{reason}"


def _delivery(row: ProblemRow) -> str:
    if row.get("problem") == "silent":
        return f"no webhook reports the positive replies of {row.get('day')}"
    day = f" ({row['day']})" if row.get("day") else ""
    where = "" if row.get("workspace") or not row.get("instance") else f"{row['instance']}: "
    return f"{where}{row.get('problem') or ''}{day}"


def _measured(row: ProblemRow) -> str:
    if row.get("problem") == "another zone":
        return (
            f"{row['instance']}: Email Bison's days are those of {row['measured']}, ours are "
            f"those of {row['in use']}"
        )
    return f"{row['instance']}: {row['measured']}, {row['in use']}"


_SENTENCES: dict[str, Callable[[ProblemRow], str]] = {
    "complete": _missing("rows"),
    "no_missing_days": _missing("facts"),
    "rows_match_inputs": _differing,
    "totals_match_bison": _total,
    "events_applied": _event,
    "webhooks_delivered": _delivery,
    "automation_alive": lambda row: f"{row.get('what')} {row.get('problem')}",
    "bison_days_measured": _measured,
    "registry_matches_bison": lambda row: str(row.get("what") or row.get("kind") or ""),
}
# For clients beyond the rows that a check stores.
_OF_ALL = {
    "freshness": "its numbers are stale",
    "complete": "rows of some days are missing",
    "no_missing_days": "facts of some days are missing",
    "plausible": "its numbers are unusual or impossible",
    "sending_pace": "it is behind its sending target",
    "reply_rate": "few of its emails were replied to",
    "rows_match_inputs": "rows differ from their inputs",
    "totals_match_bison": "totals differ from Email Bison's",
    "events_applied": "events are not in the numbers",
    "webhooks_delivered": "webhooks are missing",
    "registry_matches_bison": "it differs from Email Bison's workspace",
}
