"""Databases that the tests of a process use one after the other, emptied in between.

To empty one takes 3 ms, to create and drop one 60 to 300 ms.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, Connection, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

# Changes with every change of the schema. A table that is renamed changes in pg_class alone, whose
# transactions change with a TRUNCATE, too; so there the names are compared.
_CATALOGS = ("pg_attribute", "pg_constraint", "pg_proc", "pg_trigger", "pg_db_role_setting")
_SCHEMA = text(
    "SELECT count(*), sum(hashtext(relname)) FROM pg_class "
    + " ".join(f"UNION ALL SELECT count(*), max(xmin::text::bigint) FROM {it}" for it in _CATALOGS)
)
# The rows that a database has from its template, such as the revision of its schema.
_KEEP_ROWS = text("""
DO $$ DECLARE t regclass; found boolean; BEGIN
    CREATE SCHEMA pristine;
    FOR t IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', t) INTO found;
        IF found THEN EXECUTE format('CREATE TABLE pristine.%s AS TABLE %1$s', t); END IF;
    END LOOP;
END $$
""")
_TERMINATE_OTHERS = text(
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
_EMPTY = text("""
DO $$ DECLARE t record; BEGIN
    SET LOCAL session_replication_role = replica;
    FOR t IN
        SELECT oid::regclass AS name, pg_relation_size(oid) AS size FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND pg_relation_size(oid) > 0
    LOOP
        -- A row is deleted in no time, and leaves a dead one; TRUNCATE makes new files.
        EXECUTE format(
            CASE WHEN t.size > 65536 THEN 'TRUNCATE %s CASCADE' ELSE 'DELETE FROM %s' END, t.name
        );
    END LOOP;
    FOR t IN SELECT relname AS name FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'pristine'::regnamespace
    LOOP
        EXECUTE format('INSERT INTO public.%I SELECT * FROM pristine.%1$I', t.name);
    END LOOP;
    PERFORM setval(seqrelid, seqstart, false) FROM pg_sequence;
END $$
""")


class KeptDatabase:
    """A copy of the database `template`. Between tests only its contents are replaced."""

    def __init__(self, server: URL, name: str, template: str) -> None:
        self.url = server.set(database=name)
        self.template = template
        self._engine = create_engine(self.url, isolation_level="AUTOCOMMIT", pool_size=1)
        self._create()

    def reset(self) -> None:
        """Make it as it was, and end every other connection to it."""
        try:
            with self._engine.connect() as connection:
                connection.execute(_TERMINATE_OTHERS)
                if self._schema_of(connection) == self._schema:
                    connection.execute(_EMPTY)
                    return
        except DBAPIError:
            # The test dropped it, or ended this connection, too.
            pass
        self._create()

    def drop(self) -> None:
        """Drop it for good."""
        self._engine.dispose()
        administer(self.url, f"DROP DATABASE IF EXISTS {self.url.database} WITH (FORCE)")

    def _create(self) -> None:
        self.drop()
        administer(self.url, f"CREATE DATABASE {self.url.database} TEMPLATE {self.template}")
        with self._engine.connect() as connection:
            connection.execute(_KEEP_ROWS)
            self._schema = self._schema_of(connection)

    @staticmethod
    def _schema_of(connection: Connection) -> list[tuple[object, ...]]:
        return [tuple(row) for row in connection.execute(_SCHEMA)]


@contextmanager
def another_database(template: URL) -> Iterator[URL]:
    """A copy of the template, for longer than one test or beside that of the test."""
    kept = KeptDatabase(template, f"kpi_{uuid.uuid4().hex}", str(template.database))
    try:
        yield kept.url
    finally:
        kept.drop()


def administer(server: URL, statement: str) -> None:
    """Execute a statement as the superuser, outside of any transaction."""
    url = server.set(database="postgres")
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(statement))
