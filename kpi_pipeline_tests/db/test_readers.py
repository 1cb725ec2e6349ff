"""Who may read our tables: granted roles, and no role to which a host grants by default."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from alembic import command
from sqlalchemy import URL, Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.db.migrate import upgrade
from kpi_pipeline.db.readers import (
    READABLE,
    OpenTo,
    close_to_others,
    grant_reader,
    our_objects,
    readers,
    revoke_reader,
)
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.db.tables import metadata
from kpi_pipeline.errors import KpiError
from kpi_pipeline_tests.db.test_migrate import alembic_config

Names = Sequence[str]

# All that a role may be given on a relation, a sequence and a function.
_RIGHTS = text("""
    SELECT c.relname || ' ' || p FROM pg_class c
        CROSS JOIN unnest(ARRAY[
            'SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER'
        ]) AS p
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v')
            AND has_table_privilege(:role, c.oid, p)
    UNION ALL
    SELECT c.relname || ' ' || p FROM pg_class c
        CROSS JOIN unnest(ARRAY['USAGE', 'SELECT', 'UPDATE']) AS p
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'S'
            AND has_sequence_privilege(:role, c.oid, p)
    UNION ALL
    SELECT p.proname || ' EXECUTE' FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace
            AND has_function_privilege(:role, p.oid, 'EXECUTE')
    ORDER BY 1
""")


def rights_of(engine: Engine, role: str) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(_RIGHTS, {"role": role}))


def make_view_again(connection: Connection) -> None:
    """As an upgrade that changes a view does: the new one has the rights of a new relation."""
    definition = connection.scalar(text("SELECT pg_get_viewdef('client_leads'::regclass)"))
    connection.execute(text("DROP VIEW client_leads"))
    connection.exec_driver_sql(f"CREATE VIEW client_leads AS {definition}")


@contextmanager
def acting_as(engine: Engine, role: str) -> Iterator[Connection]:
    """A transaction of that role, which is rolled back."""
    with engine.connect() as connection:
        connection.execute(text(f"SET LOCAL ROLE {role}"))
        yield connection
        connection.rollback()


@pytest.fixture(scope="module")
def host(postgres: URL, administer: Callable[[str], None]) -> Iterator[tuple[Engine, str, Names]]:
    """An upgraded database of a host that grants all on new tables to an anonymous role; that role,
    and its rights before the upgrade.
    """
    name = f"anonymous_{uuid.uuid4().hex}"
    administer(f"CREATE ROLE {name}")
    administer(f"CREATE DATABASE {name}")
    engine = open_engine(postgres.set(database=name))
    with engine.begin() as connection:
        for what in ("TABLES", "SEQUENCES", "FUNCTIONS"):
            connection.execute(
                text(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON {what} TO {name}")
            )
        # An installation of the version before: open to everybody.
        command.upgrade(alembic_config(connection), "0020")
    before = rights_of(engine, name)
    upgrade(engine)
    yield engine, name, before
    engine.dispose()
    administer(f"DROP DATABASE {name} WITH (FORCE)")
    administer(f"DROP ROLE {name}")


@pytest.fixture
def role(administer: Callable[[str], None], database: URL) -> Iterator[str]:
    """A role that may do nothing yet."""
    name = f"bi_{uuid.uuid4().hex}"
    administer(f"CREATE ROLE {name}")
    yield name
    engine = open_engine(database)
    with engine.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {name}"))
    engine.dispose()
    administer(f"DROP ROLE {name}")


def test_an_upgrade_leaves_the_anonymous_role_of_a_host_no_right_at_all(
    host: tuple[Engine, str, Names],
) -> None:
    engine, anonymous, before = host
    open_before = {"client_api_keys SELECT", "client_metrics DELETE", "increment_metric EXECUTE"}
    assert open_before <= {*before}
    assert rights_of(engine, anonymous) == []
    for statement in ("SELECT * FROM client_api_keys", "SELECT * FROM client_registry"):
        with acting_as(engine, anonymous) as connection, pytest.raises(DBAPIError) as refused:
            connection.execute(text(statement))
        assert "permission denied" in str(refused.value.orig)


def test_what_a_later_upgrade_adds_is_closed_and_what_an_operator_granted_stays(
    host: tuple[Engine, str, Names],
) -> None:
    engine, anonymous, _ = host
    with engine.begin() as connection:
        connection.execute(text(f"GRANT SELECT ON client_metrics TO {anonymous}"))
        before = our_objects(connection)
        make_view_again(connection)
        assert "client_leads SELECT" in connection.scalars(_RIGHTS, {"role": anonymous}).all()
        assert close_to_others(connection, before) == [OpenTo(anonymous, ["client_leads"])]
        assert connection.scalars(_RIGHTS, {"role": anonymous}).all() == ["client_metrics SELECT"]
        connection.rollback()


def test_a_reader_reads_the_numbers_and_no_key_no_event_and_writes_nothing(
    engine: Engine, role: str
) -> None:
    with engine.begin() as connection:
        assert grant_reader(connection, role).schema == "public"
        assert readers(connection) == [role]
    assert rights_of(engine, role) == sorted(f"{name} SELECT" for name in READABLE)
    with acting_as(engine, role) as connection:
        for name in READABLE:
            assert connection.execute(text(f"SELECT * FROM {name}")).all() == []
    refused = [
        *(f"SELECT * FROM {name}" for name in {*metadata.tables} - {*READABLE}),
        "INSERT INTO day_zone (zone) VALUES ('UTC')",
        "UPDATE client_metrics SET emails_sent_mtd = 0",
        "DELETE FROM client_registry",
        "SELECT increment_metric('acme', 'interested_mtd')",
    ]
    for statement in refused:
        with acting_as(engine, role) as connection, pytest.raises(DBAPIError) as error:
            connection.execute(text(statement))
        assert getattr(error.value.orig, "sqlstate", None) in ("42501", "55000"), statement


def test_a_reader_reads_what_an_upgrade_adds(engine: Engine, role: str) -> None:
    with engine.begin() as connection:
        grant_reader(connection, role)
        before = our_objects(connection)
        make_view_again(connection)
        close_to_others(connection, before)
    assert rights_of(engine, role) == sorted(f"{name} SELECT" for name in READABLE)


def test_what_was_granted_is_revoked_again(engine: Engine, role: str) -> None:
    with engine.begin() as connection:
        grant_reader(connection, role)
        assert revoke_reader(connection, role)
        assert not revoke_reader(connection, role)
        assert readers(connection) == []
    assert rights_of(engine, role) == []


def test_roles_that_are_no_readers_are_refused(engine: Engine, role: str) -> None:
    with engine.begin() as connection:
        own = connection.scalar(text("SELECT current_user"))
        connection.execute(
            text(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {role}")
        )
        for name, problem in {
            "nobody_at_all": "There is no role nobody_at_all. Create it first",
            "public": "There is no role public",
            str(own): "can write to all tables already",
            role: "is a role of this host's web API",
        }.items():
            with pytest.raises(KpiError, match=problem):
                grant_reader(connection, name)
        assert readers(connection) == []
        assert grant_reader(connection, role, also_web_api=True).role == role
