import json
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, inspect, text

import kpi_pipeline.db
from kpi_pipeline.db.alerts import read_states
from kpi_pipeline.db.check_results import read_outcomes
from kpi_pipeline.db.migrate import require_current, revisions, upgrade
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.db.tables import metadata
from kpi_pipeline.errors import KpiError

MIGRATIONS = Path(kpi_pipeline.db.__file__).with_name("migrations")


def alembic_config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


@pytest.fixture
def empty(postgres: URL, administer: Callable[[str], None]) -> Iterator[Engine]:
    name = f"kpi_empty_{uuid.uuid4().hex}"
    administer(f"CREATE DATABASE {name}")
    engine = open_engine(postgres.set(database=name))
    yield engine
    engine.dispose()
    administer(f"DROP DATABASE {name} WITH (FORCE)")


def tables_of(engine: Engine) -> set[str]:
    return set(inspect(engine).get_table_names())


def constraints_of(engine: Engine) -> set[tuple[str, str, str]]:
    statement = text(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> :own"
    )
    with engine.connect() as connection:
        return {tuple(row) for row in connection.execute(statement, {"own": "alembic_version"})}


def test_the_migrations_lead_to_the_tables_of_the_code(engine: Engine) -> None:
    with engine.connect() as connection:
        options = {"compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_the_migrations_make_the_constraints_of_the_code(engine: Engine, empty: Engine) -> None:
    # Alembic's own comparison leaves out CHECK constraints.
    metadata.create_all(empty)
    assert constraints_of(engine) == constraints_of(empty)
    assert any("CHECK" in definition for _, _, definition in constraints_of(engine))


def test_an_upgrade_from_nothing_makes_every_table(empty: Engine) -> None:
    assert tables_of(empty) == set()
    upgrade(empty)
    assert tables_of(empty) == {*metadata.tables, "alembic_version"}
    require_current(empty)


def test_a_second_upgrade_changes_nothing(engine: Engine) -> None:
    row = "INSERT INTO clients (workspace, instance, bison_workspace_id, name, active) "
    with engine.begin() as connection:
        connection.execute(text(row + "VALUES ('harbor', 'main', 101, 'Harbor', true)"))
    upgrade(engine)
    require_current(engine)
    with engine.connect() as connection:
        assert connection.scalars(text("SELECT workspace FROM clients")).all() == ["harbor"]


def test_an_upgrade_keeps_the_lines_of_the_sync_log(empty: Engine) -> None:
    with empty.begin() as connection:
        command.upgrade(alembic_config(connection), "0001")
        connection.execute(
            text(
                "INSERT INTO clients (workspace, instance, bison_workspace_id, name, active) "
                "VALUES ('harbor', 'main', 101, 'Harbor', true)"
            )
        )
        connection.execute(
            text(
                "INSERT INTO sync_log VALUES ('run-1', 'harbor', '2026-03-17', '2026-03-18', "
                "'ok', NULL, 'master', 4, 2.5, '2026-03-18T20:00:00Z')"
            )
        )
    upgrade(empty)
    statement = "SELECT run_id, seconds, waiting_seconds, calling_seconds FROM sync_log"
    with empty.connect() as connection:
        assert connection.execute(text(statement)).one() == ("run-1", Decimal("2.5"), 0, 0)


def test_two_upgrades_at_once_both_succeed(empty: Engine) -> None:
    other = open_engine(empty.url)
    try:
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(upgrade, it) for it in (empty, other)]:
                done.result(timeout=60)
    finally:
        other.dispose()
    require_current(empty)


def test_a_migration_leads_back_to_where_it_came_from(engine: Engine) -> None:
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "base")
    assert tables_of(engine) == {"alembic_version"}


def test_an_empty_database_is_behind_and_the_remedy_is_named(empty: Engine) -> None:
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    with pytest.raises(KpiError) as error:
        require_current(empty)
    assert str(error.value) == (
        "The KPI database is behind this version of the code (it is at nothing, "
        f"needed is {head}). Run `kpi db upgrade`."
    )


def test_a_database_that_lacks_the_last_migration_is_behind_until_it_is_upgraded(
    engine: Engine,
) -> None:
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "-1")
    with pytest.raises(KpiError, match=r"Run `kpi db upgrade`\.$"):
        require_current(engine)
    upgrade(engine)
    require_current(engine)


def test_what_a_check_found_before_an_upgrade_names_its_clients_after_it(engine: Engine) -> None:
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0006")
        connection.execute(
            text("""
                INSERT INTO check_outcomes
                SELECT name, 'client_metrics', false, 'WARN', 'Old.', rows, 0, now(), now()
                FROM (VALUES
                    ('complete', '[{"workspace": "acme"}, {"workspace": "acme"}]'::jsonb),
                    ('events_applied', '[{"client": "birch", "id": 7}]'),
                    ('automation_alive', '[{"what": "the daemon"}]')
                ) AS found (name, rows)
            """)
        )
    upgrade(engine)
    with engine.connect() as connection:
        assert {it.name: it.clients for it in read_outcomes(connection)} == {
            "automation_alive": [],
            "complete": ["acme"],
            "events_applied": ["birch"],
        }


@pytest.mark.parametrize("use", [require_current, upgrade])
def test_a_database_of_a_newer_version_is_left_alone(
    engine: Engine, use: Callable[[Engine], None]
) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(KpiError) as error:
        use(engine)
    assert str(error.value) == (
        "The KPI database is at revision 9999, which this version of the code does not know. "
        "Install the version that upgraded it. To go back to this one, first run "
        f"`kpi db downgrade {revisions().head}` with that version."
    )
    assert {"clients", "client_metrics"} <= tables_of(engine)


def test_notices_of_an_earlier_version_are_known_after_an_upgrade_and_after_its_end(
    empty: Engine,
) -> None:
    notice = '{"at": "2026-03-18T20:00:00+00:00", "well": false, "severity": "ERROR"'
    told = f'{{"chat": {notice}, "clients": ["acme", "birch"]}}}}'
    with empty.begin() as connection:
        command.upgrade(alembic_config(connection), "0018")
        connection.execute(
            text(
                "INSERT INTO alert_state "
                "(cause, title, severity, names, clients, since, tell_from, told) "
                "VALUES ('freshness', 'stale', 'ERROR', '[]', '[]', now(), now(), :told), "
                "('plausible', 'odd', 'WARN', '[]', '[]', now(), now(), '{}')"
            ),
            {"told": told},
        )
    upgrade(empty)
    with empty.connect() as connection:
        known = read_states(connection)["freshness"].told["chat"]
        assert (known.clients, known.sent) == (("acme", "birch"), (known.at,))
        assert read_states(connection)["plausible"].told == {}
    with empty.begin() as connection:
        command.downgrade(alembic_config(connection), "0018")
        statement = "SELECT told FROM alert_state WHERE cause = 'freshness'"
        assert connection.scalar(text(statement)) == json.loads(told)
