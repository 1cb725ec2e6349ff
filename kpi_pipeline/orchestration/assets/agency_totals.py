"""The asset `agency_totals`: sums over all clients, one materialization for each scheduled sync.

The partitioned assets have one client's numbers in each materialization, which gives no plot that
can be read. These sums do.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import dagster as dg

from kpi_pipeline.orchestration.assets.resources import AppResource
from kpi_pipeline.orchestration.assets.specs import AGENCY_TOTALS, agency_totals_spec

if TYPE_CHECKING:
    from kpi_pipeline.app import AppContext


@dg.multi_asset(specs=[agency_totals_spec()], name="sum_clients")
def agency_totals(app: AppResource) -> dg.MaterializeResult[None]:
    """Sum today's rows of all active clients."""
    with app.opened() as opened:
        return dg.MaterializeResult(asset_key=AGENCY_TOTALS, metadata=_totals(opened))


def totals_materialization(app: "AppContext") -> dg.AssetMaterialization:
    """Today's totals, as the sensor `report_changed_rows` reports them after a sync."""
    return dg.AssetMaterialization(AGENCY_TOTALS, metadata=_totals(app))


def has_numbers(totals: dg.AssetMaterialization) -> bool:
    """Whether these totals sum up the numbers of any client."""
    return totals.metadata["clients_with_numbers"].value != 0


def _totals(app: "AppContext") -> dict[str, int]:
    # Imported late: loading the definitions needs none of it.
    from kpi_pipeline.alerts.summary import standing_of
    from kpi_pipeline.db.metrics import read_metrics
    from kpi_pipeline.domain.standing import ON_TRACK

    with app.engine.connect() as connection:
        rows = read_metrics(connection, app.today())
    return {
        "emails_sent_mtd": _sum(row.emails_sent_mtd for row in rows),
        "positive_replies_mtd": _sum(row.positive_replies_mtd for row in rows),
        "projection_positive_replies_eom": _sum(
            row.projection_positive_replies_eom for row in rows
        ),
        "clients_on_track": sum(standing_of(row) in ON_TRACK for row in rows),
        "clients_with_numbers": sum(row.positive_replies_mtd is not None for row in rows),
        "clients": len(rows),
    }


def _sum(values: Iterable[int | None]) -> int:
    return sum(value for value in values if value is not None)
