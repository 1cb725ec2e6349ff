"""The specs of the asset checks: the asset and the meaning of each.

They are unpartitioned, and cover all clients: checks over partitions are a preview in Dagster, and
wrong for a run over a range.
"""

from collections.abc import Mapping

import dagster as dg

from kpi_pipeline.checks.outcome import ASKING_BISON, Check
from kpi_pipeline.checks.pace import DEFAULT_MAX_SENDING_SHORTFALL, DEFAULT_MIN_REPLY_RATE
from kpi_pipeline.orchestration.assets.specs import REGISTRY, WEBHOOK_EVENTS
from kpi_pipeline.sync.scope import KpiAsset

_FACTS, _METRICS = dg.AssetKey(KpiAsset.FACTS.value), dg.AssetKey(KpiAsset.METRICS.value)

ASSET_OF: Mapping[Check, dg.AssetKey] = {
    Check.FRESHNESS: _METRICS,
    Check.COMPLETE: _METRICS,
    Check.PLAUSIBLE: _METRICS,
    Check.SENDING_PACE: _METRICS,
    Check.REPLY_RATE: _METRICS,
    Check.ROWS_MATCH_INPUTS: _METRICS,
    Check.AUTOMATION_ALIVE: _METRICS,
    Check.NO_MISSING_DAYS: _FACTS,
    Check.TOTALS_MATCH_BISON: _FACTS,
    Check.BISON_DAYS_MEASURED: _FACTS,
    Check.WEBHOOKS_DELIVERED: WEBHOOK_EVENTS,
    Check.EVENTS_APPLIED: WEBHOOK_EVENTS,
    Check.REGISTRY_MATCHES_BISON: REGISTRY,
}

_MEANINGS = {
    Check.FRESHNESS: "Every active client: each row of the last 62 days is closed by KPI_FRESH_BY, "
    "the latest numbers are younger than KPI_STALE_AFTER_HOURS, and no facts are from the future.",
    Check.COMPLETE: "Every active client has a row for each of the last 62 closed days.",
    Check.PLAUSIBLE: "No row is negative, contradicts its own windows or falls within its month; "
    "no two clients have the same totals; mail gets through, and brings replies.",
    Check.SENDING_PACE: "No client is behind its monthly sending target at this day of the month "
    f"by more than {DEFAULT_MAX_SENDING_SHORTFALL} %, or a threshold of its own.",
    Check.REPLY_RATE: "Each client that sent 100 emails or more in the last seven closed days had "
    f"replies to {DEFAULT_MIN_REPLY_RATE} % of them, or to a share of its own.",
    Check.ROWS_MATCH_INPUTS: "Every value of the last 62 days equals what facts, events, targets, "
    "labels and sending plans give: it is worked out a second time, in SQL.",
    Check.AUTOMATION_ALIVE: "All schedules and sensors are on time, Dagster's daemon runs, and no "
    "run takes longer than its limit.",
    Check.NO_MISSING_DAYS: "No day is missing among an active client's facts, from its first to "
    "yesterday.",
    Check.TOTALS_MATCH_BISON: "The month's sums equal Email Bison's own totals. Calls Email Bison: "
    "once a day, or by hand.",
    Check.BISON_DAYS_MEASURED: "The zone of all dates is that of Email Bison's days, as far as "
    "`kpi bison measure` could find out, and no finding has changed within seven days.",
    Check.WEBHOOKS_DELIVERED: "Webhooks reported each positive reply that Email Bison counted in "
    "the last seven closed days, and still arrive.",
    Check.EVENTS_APPLIED: "No event is set aside, invalid or without a client, and none has waited "
    "longer than 15 minutes to be applied.",
    Check.REGISTRY_MATCHES_BISON: "Each client is a workspace that Email Bison lists, its API key "
    "is valid, and, with KPI_GATEWAY_URL, it has the webhook that it should. Calls Email Bison: "
    "with each refresh of the registry.",
}


def check_key(check: Check) -> dg.AssetCheckKey:
    """The Dagster key of a check."""
    return dg.AssetCheckKey(ASSET_OF[check], check.value)


def specs_of(*assets: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """The checks of these assets."""
    return [
        dg.AssetCheckSpec(check.value, asset=asset, description=_MEANINGS[check])
        for check, asset in ASSET_OF.items()
        if asset in assets
    ]


TOTALS_CHECK = check_key(Check.TOTALS_MATCH_BISON)
# These read the database alone; the others call Email Bison.
LIGHT_CHECKS = [check_key(check) for check in Check if check not in ASKING_BISON]
