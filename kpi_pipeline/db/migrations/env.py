"""Alembic's entry: runs the migrations on the connection that `migrate` passes."""

from alembic import context

from kpi_pipeline.db.moving_in.names import require_free_names
from kpi_pipeline.db.readers import close_to_others, our_objects
from kpi_pipeline.db.tables import metadata

# The revision from which on the tables know their readers; it closes all that was there before.
_READERS = "0021"

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    compare_server_default=True,
)
with context.begin_transaction():
    before = context.get_context().get_current_revision() or ""
    if not before:
        require_free_names(connection)
    objects = our_objects(connection) if before >= _READERS else set()
    context.run_migrations()
    after = context.get_context().get_current_revision() or ""
    if after >= _READERS and after != before:
        close_to_others(connection, except_for=objects)
