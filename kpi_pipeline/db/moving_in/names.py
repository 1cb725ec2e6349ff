"""The names that both systems use, and what stands under them in a schema."""

from sqlalchemy import Connection, text

from kpi_pipeline.db.tables import metadata
from kpi_pipeline.domain.formatting import joined
from kpi_pipeline.errors import KpiError

REGISTRY = "client_registry"
METRICS = "client_metrics"
# What the old system's readers name; the first two are its tables that are taken.
OLD_NAMES = (REGISTRY, METRICS, "client_leads", "client_latest_metrics")
COUNTER = "increment_metric"
# Under this name the old tables are kept once ours take their place.
KEPT = "_replaced"

_FOUND = text("""
    SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = current_schema() AND c.relname = ANY (CAST(:names AS text[]))
        AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    UNION
    SELECT proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = current_schema() AND proname = :counter
    ORDER BY 1
""")


def require_free_names(connection: Connection) -> None:
    """Check, before the first migration, that no other system's tables have the names of ours.

    Raises:
        KpiError: naming them, and how to live beside them or take their place.
    """
    needed = {*metadata.tables, "daily_kpi_sync_history", COUNTER}
    names = sorted({*needed, *OLD_NAMES})
    found = list(connection.scalars(_FOUND, {"names": names, "counter": COUNTER}))
    # Without those views alone, ours can be made.
    if not needed & {*found}:
        return
    schema = connection.scalar(text("SELECT current_schema()"))
    shown = joined(found)
    raise KpiError(
        f"The schema {schema} of this database holds {shown} of another system. Nothing was "
        "changed. To live beside it, set KPI_DATABASE_SCHEMA to a schema of its own, such as kpi. "
        "To take over the clients and rows of the old system, see `kpi migrate-from --help`; with "
        "--replace its tables are kept under another name, and ours take their place."
    )
