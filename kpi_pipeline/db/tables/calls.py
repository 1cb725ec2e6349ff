"""State that all processes share about calls to an Email Bison instance."""

from sqlalchemy import BigInteger, Column, Table, Text, Uuid

from kpi_pipeline.db.tables.base import metadata, moment, updated_at

# When the next call may start; then the slots of calls in flight, and the holder of the master key.
bison_pacing = Table(
    "bison_pacing",
    metadata,
    Column("instance", Text, primary_key=True),
    moment("next_free_at"),
    updated_at(),
)

bison_call_slots = Table(
    "bison_call_slots",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("instance", Text, nullable=False),
    moment("expires_at"),
)

bison_master_key_leases = Table(
    "bison_master_key_leases",
    metadata,
    Column("instance", Text, primary_key=True),
    Column("holder", Uuid, nullable=False),
    moment("expires_at"),
)

# The run that fetches a client's facts for a backfill.
backfill_fetch_leases = Table(
    "backfill_fetch_leases",
    metadata,
    Column("workspace", Text, primary_key=True),
    Column("holder", Uuid, nullable=False),
    moment("expires_at"),
)

# Undocumented members in Email Bison's answers.
bison_unknown_fields = Table(
    "bison_unknown_fields",
    metadata,
    Column("instance", Text, primary_key=True),
    Column("call", Text, primary_key=True, comment="method and path"),
    Column("field", Text, primary_key=True, comment="path within the answer"),
    Column("answers", BigInteger, nullable=False, comment="how many held it"),
    moment("first_seen_at"),
    moment("last_seen_at"),
)
