"""Upgrades the KPI tables to this version of the code, and checks that they are at it."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from kpi_pipeline.db.server.holders import alter_tables
from kpi_pipeline.errors import KpiError


@dataclass(frozen=True)
class Revisions:
    """The migrations of this version of the code: the last one, and all of them."""

    head: str | None
    known: frozenset[str]


@cache
def revisions() -> Revisions:
    """The migrations of this version of the code, read once per process."""
    scripts = ScriptDirectory.from_config(_config())
    known = frozenset(script.revision for script in scripts.walk_revisions())
    return Revisions(scripts.get_current_head(), known)


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    return config


def upgrade(engine: Engine) -> None:
    """Run the migrations that the database lacks; processes wait for each other.

    Raises:
        KpiError: if the database is ahead of this version of the code, this user may not make its
            tables, or others hold them up for minutes.
    """

    def work(connection: Connection) -> None:
        _known_revision(connection)
        command.upgrade(_config(connection), "head")

    alter_tables(engine, work)


def move_to(connection: Connection, revision: str) -> None:
    """Run the migrations up or down to `revision`, within the transaction of this connection.

    Raises:
        KpiError: if `revision`, or that of the database, is one of a newer version of the code.
    """
    found = _known_revision(connection)
    newest_first = [it.revision for it in ScriptDirectory.from_config(_config()).walk_revisions()]
    if revision not in newest_first:
        raise KpiError(
            f"Revision {revision} of the KPI tables is one that this version of the code does not "
            "know. Install the version that made it."
        )
    if found is not None and newest_first.index(found) < newest_first.index(revision):
        command.downgrade(_config(connection), revision)
    else:
        command.upgrade(_config(connection), revision)


def require_current(engine: Engine) -> None:
    """Check that the database is at this version of the code.

    A migration was once in the repository and not in the database.

    Raises:
        KpiError: naming `kpi db upgrade` where the database is behind, and a newer version of the
            code where it is ahead.
    """
    with engine.connect() as connection:
        found = _known_revision(connection)
    if found != revisions().head:
        raise KpiError(
            f"The KPI database is behind this version of the code (it is at {found or 'nothing'}, "
            f"needed is {revisions().head}). Run `kpi db upgrade`."
        )


def _known_revision(connection: Connection) -> str | None:
    """The revision of the database, or None before the first.

    Raises:
        KpiError: if a newer version of the code upgraded it.
    """
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in revisions().known:
        raise KpiError(
            f"The KPI database is at revision {found}, which this version of the code does not "
            "know. Install the version that upgraded it. To go back to this one, first run "
            f"`kpi db downgrade {revisions().head}` with that version."
        )
    return found
