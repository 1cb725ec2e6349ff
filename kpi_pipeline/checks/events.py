"""The check `events_applied`: whatever came in by itself and does not count, and what to do."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from kpi_pipeline.assets.resources import DeploymentResource
from kpi_pipeline.assets.specs import WEBHOOK_EVENTS
from kpi_pipeline.errors import KpiError
from kpi_pipeline.warehouse.event_trouble import EventTrouble

if TYPE_CHECKING:
    from kpi_pipeline.warehouse.event_trouble import TroubledEvents

# Of each kind of trouble; `kpi events list` has them all.
_MOST_SHOWN = 20

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


@dg.asset_check(
    asset=WEBHOOK_EVENTS,
    description="No event is set aside, invalid or without a client, or waits for longer than 15 "
    "minutes to be worked into the numbers.",
)
def events_applied(deployment: DeploymentResource) -> dg.AssetCheckResult:
    """Name the events that do not count, and say what to do about them."""
    from kpi_pipeline.warehouse.event_trouble import troubled_events

    try:
        with deployment.opened() as opened, opened.engine.connect() as connection:
            troubled = troubled_events(connection, opened.now(), _MOST_SHOWN)
    except KpiError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    return dg.AssetCheckResult(
        passed=not troubled,
        severity=dg.AssetCheckSeverity.WARN,
        description=_description(troubled),
        metadata={
            **{it.trouble.replace(" ", "_"): it.events for it in troubled},
            **({"events": _table(troubled)} if troubled else {}),
        },
    )


def _description(troubled: "Sequence[TroubledEvents]") -> str:
    if not troubled:
        return "Every event that counts is in the numbers."
    parts = [f"{it.events} {it.trouble}: {_WHAT_TO_DO[it.trouble]}." for it in troubled]
    return "Some events are not in the numbers. " + " ".join(parts)


def _table(troubled: "Sequence[TroubledEvents]") -> dg.TableMetadataValue:
    records = [
        dg.TableRecord(
            {
                "trouble": it.trouble.value,
                "id": event.event_id,
                "type": event.event_type or "unknown",
                "client": event.client,
                "reason": event.reason or "",
            }
        )
        for it in troubled
        for event in it.latest
    ]
    columns = [
        dg.TableColumn(name, type="int" if name == "id" else "string")
        for name in ("trouble", "id", "type", "client", "reason")
    ]
    return dg.MetadataValue.table(records, dg.TableSchema(columns=columns))
