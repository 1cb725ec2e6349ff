"""Databases that the tests of a process use one after the other, emptied in between.

To empty one takes 3 ms, to create and drop one 60 to 300 ms.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

# Changes with every change of the schema.
_SCHEMA = text(
    "SELECT count(*), max(xmin::text::bigint) FROM pg_attribute "
    # A table that is renamed changes here alone; TRUNCATE changes xmin, and no name.
    "UNION ALL SELECT count(*), sum(hashtext(relname)) FROM pg_class "
    "UNION ALL SELECT count(*), max(xmin::text::bigint) FROM pg_constraint "
    "UNION ALL SELECT count(*), max(xmin::text::bigint) FROM pg_proc "
    "UNION ALL SELECT count(*), max(xmin::text::bigint) FROM pg_trigger "
    "UNION ALL SELECT count(*), max(xmin::text::bigint) FROM pg_db_role_setting"
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
    """A copy of a template database. Between tests only its contents are replaced."""

    def __init__(self, server: URL, name: str, template: str) -> None:
        self.url = server.set(database=name)
        self._template = template
        self._server = _autocommit(server.set(database="postgres"))
        self._engine = _autocommit(self.url)
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
        self._drop()
        self._server.dispose()

    def _create(self) -> None:
        self._engine.dispose()
        self._drop()
        with self._server.connect() as connection:
            connection.execute(
                text(f"CREATE DATABASE {self.url.database} TEMPLATE {self._template}")
            )
        with self._engine.connect() as connection:
            connection.execute(_KEEP_ROWS)
            self._schema = self._schema_of(connection)

    def _drop(self) -> None:
        with self._server.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {self.url.database} WITH (FORCE)"))

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


def _autocommit(url: URL) -> Engine:
    return create_engine(url, isolation_level="AUTOCOMMIT", pool_size=1)
