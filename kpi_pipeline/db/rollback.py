"""Takes the KPI tables back to those of an earlier version of the code."""

from pathlib import Path

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from kpi_pipeline.db.migrate import move_to
from kpi_pipeline.db.server.holders import alter_tables
from kpi_pipeline.errors import KpiError

_MIGRATIONS = Path(__file__).with_name("migrations")


def revision_of(engine: Engine) -> str | None:
    """The last migration that the database has; None before the first."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def migrations_after(engine: Engine, revision: str) -> list[str]:
    """What `downgrade` to this revision takes back, the latest first: revisions with their titles.

    Raises:
        KpiError: if the database is not at this revision or a later one of this code.
    """
    newest_first = [*ScriptDirectory(_MIGRATIONS).walk_revisions()]
    revisions = [it.revision for it in newest_first]
    found = revision_of(engine)
    if revision not in revisions or found not in revisions:
        unknown = revision if revision not in revisions else found
        raise KpiError(
            f"This version of the code knows no revision {unknown} of the KPI tables. It knows "
            f"{revisions[-1]} to {revisions[0]}."
        )
    first, last = revisions.index(found), revisions.index(revision)
    if last < first:
        raise KpiError(
            f"The KPI database is at revision {found}, which is older than {revision}. "
            "`kpi db upgrade` leads there."
        )
    return [f"{it.revision}: {(it.doc or '').rstrip('.')}" for it in newest_first[first:last]]


def downgrade(engine: Engine, revision: str) -> None:
    """Take back all later migrations in one transaction, with what their tables and columns hold.

    Raises:
        KpiError: if others hold the tables up, or this user may not change them.
    """

    def work(connection: Connection) -> None:
        move_to(connection, revision)

    alter_tables(engine, work)
