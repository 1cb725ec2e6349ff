"""What each run would look up on disk anew; importing this does it once, before runs are forked."""

from kpi_pipeline.db.migrate import revisions
from kpi_pipeline.settings import zone_names

zone_names()
revisions()
