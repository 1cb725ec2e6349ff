"""What each run would look up on disk anew; importing this does it once, before runs are forked."""

from kpi_pipeline.settings import zone_names
from kpi_pipeline.warehouse.migrate import revisions

zone_names()
revisions()
