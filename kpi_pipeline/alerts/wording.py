"""What a message calls each problem while it lasts, and what is well again after it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kpi_pipeline.checks.outcome import Check, Severity
from kpi_pipeline.db.alerts import SYNC
from kpi_pipeline.domain.formatting import counted, joined

# A title names so many clients, and counts more.
_NAMED = 3


class Wording(NamedTuple):
    """A problem in a few words, and its end; the clients follow, as in "… for acme".

    `warned` is what a WARN is called, where an ERROR is something else.
    """

    wrong: str
    well: str
    warned: str = ""


WORDING: Mapping[str, Wording] = {
    SYNC: Wording("the sync fails", "the sync works again"),
    Check.FRESHNESS: Wording("numbers are stale", "numbers are fresh again"),
    Check.COMPLETE: Wording("rows of some days are missing", "no rows are missing any more"),
    Check.PLAUSIBLE: Wording(
        "numbers are impossible", "numbers are plausible again", warned="numbers are unusual"
    ),
    Check.SENDING_PACE: Wording("sending is behind its target", "sending keeps pace again"),
    Check.REPLY_RATE: Wording("few emails are replied to", "emails are replied to again"),
    Check.ROWS_MATCH_INPUTS: Wording(
        "rows differ from their inputs", "rows equal their inputs again"
    ),
    Check.AUTOMATION_ALIVE: Wording("automation does not work", "automation works again"),
    Check.NO_MISSING_DAYS: Wording(
        "facts of some days are missing", "no facts are missing any more"
    ),
    Check.TOTALS_MATCH_BISON: Wording(
        "totals do not match Email Bison's", "totals match Email Bison's again"
    ),
    Check.WEBHOOKS_DELIVERED: Wording(
        "no webhook delivers positive replies",
        "webhooks deliver every positive reply again",
        warned="webhooks do not deliver every positive reply",
    ),
    Check.EVENTS_APPLIED: Wording(
        "some events are not in the numbers", "every event is in the numbers again"
    ),
    Check.BISON_DAYS_MEASURED: Wording(
        "Email Bison's days differ from the settings", "Email Bison's days fit the settings again"
    ),
    Check.REGISTRY_MATCHES_BISON: Wording(
        "the registry differs from Email Bison", "the registry matches Email Bison again"
    ),
}


# How the titles of other problems end, and what follows from it.
_ENDINGS = {
    " fails": " works again",
    " failed": " succeeded",
    " accepts no alerts": " accepts alerts again",
    " does not run": " runs again",
}


def what_is_wrong(name: str, severity: str) -> str:
    """A check that fails, or the sync, in a few words."""
    found = WORDING.get(name)
    if found is None:
        return f"{name} fails"
    return found.warned or found.wrong if severity == Severity.WARN else found.wrong


def what_is_well(name: str, title: str) -> str:
    """What is well again once a problem has ended that had this name and title."""
    if found := WORDING.get(name):
        return found.well
    for ending, well in _ENDINGS.items():
        if title.endswith(ending):
            return f"{title.removesuffix(ending)}{well}"
    return f"{name} works again"


def whom(clients: Sequence[str]) -> str:
    """The clients after a problem: by name if they are few; nothing for a problem without any."""
    if not clients:
        return ""
    return f" for {joined(clients) if are_named(clients) else counted(len(clients), 'client')}"


def are_named(clients: Sequence[str]) -> bool:
    """Whether `whom` names each of them."""
    return len(clients) <= _NAMED
