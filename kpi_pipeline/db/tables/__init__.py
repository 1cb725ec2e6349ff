"""The KPI tables. Migrations under `migrations/` bring a database to this state."""

from kpi_pipeline.db.tables.alerts import (
    alert_evaluations,
    alert_mutes,
    alert_receivers,
    alert_state,
    check_outcomes,
)
from kpi_pipeline.db.tables.base import metadata
from kpi_pipeline.db.tables.calls import (
    backfill_fetch_leases,
    bison_call_slots,
    bison_master_key_leases,
    bison_pacing,
    bison_unknown_fields,
)
from kpi_pipeline.db.tables.clients import client_api_keys, client_targets, clients
from kpi_pipeline.db.tables.events import event_feed, event_feed_missing, webhook_events
from kpi_pipeline.db.tables.measured import bison_findings, bison_series_readings
from kpi_pipeline.db.tables.moved_in import old_clients, old_metrics, readers
from kpi_pipeline.db.tables.numbers import (
    changed_rows,
    client_metrics,
    day_zone,
    kpi_projections,
    raw_bison_stats,
    sending_plans,
    sync_log,
)
from kpi_pipeline.db.tables.web import (
    action_requests,
    target_changes,
    web_api_tokens,
    web_sessions,
    web_users,
)

__all__ = [
    "action_requests",
    "alert_evaluations",
    "alert_mutes",
    "alert_receivers",
    "alert_state",
    "backfill_fetch_leases",
    "bison_call_slots",
    "bison_findings",
    "bison_master_key_leases",
    "bison_pacing",
    "bison_series_readings",
    "bison_unknown_fields",
    "changed_rows",
    "check_outcomes",
    "client_api_keys",
    "client_metrics",
    "client_targets",
    "clients",
    "day_zone",
    "event_feed",
    "event_feed_missing",
    "kpi_projections",
    "metadata",
    "old_clients",
    "old_metrics",
    "raw_bison_stats",
    "readers",
    "sending_plans",
    "sync_log",
    "target_changes",
    "web_api_tokens",
    "web_sessions",
    "web_users",
    "webhook_events",
]
