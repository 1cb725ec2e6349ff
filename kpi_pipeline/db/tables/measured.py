"""What was measured of how Email Bison counts."""

from sqlalchemy import ARRAY, CheckConstraint, Column, Date, ForeignKey, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from kpi_pipeline.db.tables.base import metadata, moment, one_of, workspace_key
from kpi_pipeline.domain.measure import Subject

# The last comparison of events and series for each question, and the last answer that was decided.
bison_findings = Table(
    "bison_findings",
    metadata,
    Column("instance", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("workspace", Text, ForeignKey("clients.workspace"), nullable=False),
    moment("measured_at"),
    Column(
        "possible",
        ARRAY(Text),
        nullable=False,
        comment="what may be right, according to the last comparison",
    ),
    Column("evidence", Text, nullable=False),
    Column("value", Text, comment="the last answer that was decided"),
    Column("before", Text, comment="the answer before the last change"),
    moment("changed_at", nullable=True),
    CheckConstraint(one_of("subject", Subject), name="subject_is_known"),
)

# The last daily series that was read for a comparison: the next one shows which days were revised.
bison_series_readings = Table(
    "bison_series_readings",
    metadata,
    workspace_key(),
    Column("read_on", Date, nullable=False, comment="the date of Email Bison's days"),
    Column("days", JSONB, nullable=False, comment="day, count, number"),
)
