"""Whether whatever came in by itself counts, and what to do about what does not."""

from collections.abc import Sequence

from kpi_pipeline.checks.outcome import MOST_OFFENDERS, Check, Outcome, Severity
from kpi_pipeline.db.check_queries.events import EventTrouble, TroubledEvents

# Of each kind of trouble; `kpi events list` has them all.
MOST_OF_A_KIND = MOST_OFFENDERS // len(EventTrouble)

_WHAT_TO_DO = {
    EventTrouble.SET_ASIDE: "mend what `kpi events list --status set_aside` names, then `kpi "
    "events replay --status set_aside` has them tried again",
    EventTrouble.INVALID: "`kpi events list --status invalid` says what can't be understood, and "
    "`kpi events replay --status invalid` reads them again after an upgrade",
    EventTrouble.UNMATCHED: "import their client (`kpi clients import`), or delete the webhook of "
    "that workspace in Email Bison",
    EventTrouble.WAITING: "see that Dagster's daemon runs and that the sensor webhook_event_sensor "
    "is on; `kpi events list --status received` shows why the last try failed",
}


def events_applied(troubled: Sequence[TroubledEvents]) -> Outcome:
    """Name the events that do not count, and say what to do about them."""
    parts = [f"{it.events} {it.trouble}: {_WHAT_TO_DO[it.trouble]}." for it in troubled]
    offenders = [
        {
            "trouble": it.trouble.value,
            "id": event.event_id,
            "type": event.event_type or "unknown",
            "client": event.client,
            "reason": event.reason or "",
        }
        for it in troubled
        for event in it.latest
    ]
    return Outcome(
        Check.EVENTS_APPLIED,
        "Some events are not in the numbers. " + " ".join(parts)
        if parts
        else "Every event that counts is in the numbers.",
        Severity.WARN,
        offenders,
        sum(it.events for it in troubled) - len(offenders),
        sorted({client for it in troubled for client in it.clients}),
        {it.trouble.replace(" ", "_"): it.events for it in troubled},
    )
