"""The old dashboard's queries return from our tables what they returned from the old ones.

They are the SQL that PostgREST sends for its requests, embedded registry included.
"""

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from kpi_pipeline.db.facts import store_facts
from kpi_pipeline.db.migrate import upgrade
from kpi_pipeline.db.moving_in.match import match_clients
from kpi_pipeline.db.moving_in.replace import (
    is_same_database,
    keep_old_tables,
    put_views_in_place,
)
from kpi_pipeline.db.moving_in.source import read_old_system, reading
from kpi_pipeline.db.moving_in.take import take
from kpi_pipeline.db.readers import grant_reader
from kpi_pipeline.db.recompute import update_rows
from kpi_pipeline.db.registry.clients import all_clients
from kpi_pipeline.db.registry.vault import Vault, new_secret_key
from kpi_pipeline.db.server.engine import open_engine
from kpi_pipeline.db.tables import clients, sync_log
from kpi_pipeline.domain.calendar import days_between, first_of_month
from kpi_pipeline_tests.db.old_system import OldWorkspace, build_old_system, facts_of
from kpi_pipeline_tests.db.stocked import AS_OF, CHICAGO, TODAY

LAST = TODAY - timedelta(days=1)
MONTH = first_of_month(LAST)
AGENCY = [
    OldWorkspace(100, "Harbor Analytics", display_name="Harbor", bison_name="Harbor Analytics"),
    OldWorkspace(101, "Quay", display_name="Quay", bison_name="Quay"),
    OldWorkspace(102, "Mill", display_name="The Mill", bison_name="Mill", active=False),
]


def embedded(columns: str, where: str) -> str:
    """What PostgREST sends for select=…,client_registry!inner(…): it joins by our foreign key, and
    joined by the name before. {join} is that condition.
    """
    return f"""
        WITH pgrst_source AS (
            SELECT {columns},
                row_to_json("client_metrics_client_registry_1".*)::jsonb AS "client_registry"
            FROM "public"."client_metrics"
            INNER JOIN LATERAL (
                SELECT "client_registry_1"."workspace_name", "client_registry_1"."display_name",
                    "client_registry_1"."monthly_kpi_target",
                    "client_registry_1"."monthly_sending_target",
                    "client_registry_1"."price_per_lead", "client_registry_1"."is_active",
                    "client_registry_1"."kpi_dashboard_enabled"
                FROM "public"."client_registry" AS "client_registry_1"
                WHERE "client_registry_1"."is_active" = 'true'
                    AND "client_registry_1"."kpi_dashboard_enabled" = 'true'
                    AND {{join}}
            ) AS "client_metrics_client_registry_1" ON TRUE
            WHERE "public"."client_metrics"."metric_type" = 'mtd' AND {where}
            ORDER BY "public"."client_metrics"."positive_replies_mtd" DESC,
                "public"."client_metrics"."workspace_name", "public"."client_metrics"."metric_date"
        )
        SELECT coalesce(json_agg(_postgrest_t), '[]')::jsonb
        FROM (SELECT * FROM pgrst_source) _postgrest_t
    """


OLD_JOIN = '"client_registry_1"."workspace_name" = "public"."client_metrics"."workspace_name"'
OUR_JOIN = '"client_registry_1"."workspace" = "public"."client_metrics"."workspace"'
QUERIES = {
    "the month's last date": f"""
        SELECT "public"."client_metrics"."metric_date" FROM "public"."client_metrics"
        WHERE "metric_type" = 'mtd' AND "metric_date" >= '{MONTH}' AND "metric_date" <= '2026-03-31'
        ORDER BY "metric_date" DESC LIMIT 1
    """,
    "the clients of a date": embedded(
        '"public"."client_metrics"."workspace_name", "public"."client_metrics"."emails_sent_mtd", '
        '"public"."client_metrics"."positive_replies_mtd", '
        '"public"."client_metrics"."positive_replies_last_month", '
        '"public"."client_metrics"."projection_positive_replies_eom", '
        '"public"."client_metrics"."projection_emails_eom", '
        '"public"."client_metrics"."mtd_leads_progress", '
        '"public"."client_metrics"."projection_replies_progress"',
        f'"public"."client_metrics"."metric_date" = \'{LAST}\'',
    ),
    "emails of a month": embedded(
        '"public"."client_metrics"."metric_date", "public"."client_metrics"."emails_sent_mtd"',
        f'"public"."client_metrics"."metric_date" >= \'{MONTH}\'',
    ),
    "leads of a month": f"""
        SELECT "public"."client_leads"."workspace_name" FROM "public"."client_leads"
        WHERE "interested" = 'true' AND "date_received" >= '{MONTH}'
            AND "date_received" < '2026-04-01'
        ORDER BY 1
    """,
    "leads of a day, in the zone of the agency": f"""
        SELECT workspace_name, count(*) FROM public.client_leads
        WHERE interested AND (date_received AT TIME ZONE 'America/Chicago')::date = '{MONTH}'
        GROUP BY 1 ORDER BY 1
    """,
    "the registry": """
        SELECT workspace_name, display_name, is_active, billing_type, price_per_lead,
            monthly_kpi_target, monthly_sending_target, kpi_dashboard_enabled,
            bison_workspace_id, bison_workspace_name
        FROM public.client_registry ORDER BY workspace_name
    """,
    "the latest numbers": """
        SELECT workspace_name, metric_date, emails_sent_mtd, projection_emails_eom,
            positive_replies_mtd, projection_positive_replies_eom, mtd_leads_progress,
            projection_replies_progress
        FROM public.client_latest_metrics ORDER BY workspace_name
    """,
}
UPSERT = f"""
    INSERT INTO "public"."client_metrics" ("workspace_name", "metric_date", "metric_type",
        "emails_sent_mtd") VALUES ('Quay', '{LAST}', 'mtd', 1)
    ON CONFLICT ("workspace_name", "metric_date", "metric_type")
    DO UPDATE SET "emails_sent_mtd" = EXCLUDED."emails_sent_mtd"
"""


@dataclass(frozen=True)
class House:
    """A database with both systems, ours in the schema `kpi` and in the old one's place."""

    ours: Engine
    role: str
    before: dict[str, Sequence[object]]
    kept: Sequence[str]


def answers(connection: Connection, join: str) -> dict[str, Sequence[object]]:
    """The answer to each query, as plain values."""
    return {
        name: [tuple(row) for row in connection.execute(text(query.replace("{join}", join)))]
        for name, query in QUERIES.items()
    }


def fill(engine: Engine) -> None:
    """Take what the old system has, and compute the rows of its days from daily counts."""
    vault = Vault(SecretStr(new_secret_key()))
    with reading(engine.url) as source:
        old = read_old_system(source, "public")
    names = {it.bison_id: it.name for it in AGENCY if it.bison_id}
    matches = match_clients(old.clients, [], {"main": names}, {})
    first = min(it.metric_date for it in old.rows)
    with engine.begin() as connection:
        take(
            connection,
            matches.found,
            old.rows,
            targets_from=first_of_month(first),
            vault=vault,
            zone=CHICAGO,
            with_keys=False,
        )
        for it in all_clients(connection):
            facts = facts_of(it.bison_workspace_id, date(2026, 1, 1), LAST)
            store_facts(connection, it.workspace, facts, AS_OF)
            days = days_between(first, LAST)
            update_rows(
                connection, [it.workspace], since=LAST, zone=CHICAGO, source="sync", dates=days
            )


@pytest.fixture(scope="module")
def house(postgres: URL, administer: Callable[[str], None]) -> Iterator[House]:
    name = f"kpi_house_{uuid.uuid4().hex}"
    administer(f"CREATE DATABASE {name}")
    administer(f"CREATE ROLE {name}")
    # As a host does: whatever is made in `public` is everybody's.
    url = postgres.set(database=name)
    host = create_engine(url)
    with host.begin() as connection:
        connection.execute(
            text(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO {name}")
        )
        build_old_system(connection, AGENCY, LAST, days=45)
        before = answers(connection, OLD_JOIN)
    host.dispose()
    administer(f"ALTER DATABASE {name} SET search_path = kpi")
    ours = open_engine(url)
    with ours.begin() as connection:
        connection.execute(text("CREATE SCHEMA kpi"))
    upgrade(ours)
    fill(ours)
    with ours.begin() as connection:
        kept = keep_old_tables(connection, "public").kept
        put_views_in_place(connection, "public")
    yield House(ours, name, before, kept)
    ours.dispose()
    administer(f"DROP DATABASE {name} WITH (FORCE)")
    administer(f"DROP ROLE {name}")


def test_the_old_dashboards_queries_return_what_they_returned(house: House) -> None:
    assert all(house.before.values())
    with house.ours.connect() as connection:
        after = answers(connection, OUR_JOIN)
        by_name = answers(connection, OLD_JOIN)
    assert after == by_name
    for name in QUERIES:
        assert after[name] == house.before[name], name


def test_the_old_tables_are_kept_whole_under_another_name(house: House) -> None:
    assert house.kept == [
        "public.client_latest_metrics is kept as public.client_latest_metrics_replaced",
        "public.client_leads is kept as public.client_leads_replaced",
        "public.client_metrics is kept as public.client_metrics_replaced",
        "public.client_registry is kept as public.client_registry_replaced",
        "public.increment_metric is kept as public.increment_metric_replaced",
    ]
    with house.ours.connect() as connection, reading(house.ours.url) as source:
        rows = text("SELECT count(*) FROM public.client_metrics_replaced")
        assert connection.scalar(rows) == 3 * 45
        # What is read again is what was kept.
        assert len(read_old_system(source, "public").rows) == 3 * 45


def test_postgrest_finds_the_foreign_key_by_which_it_embeds_the_registry(house: House) -> None:
    # It follows a key between the tables of two views if both views show its columns.
    found = text("""
        SELECT count(*) FROM pg_constraint
        WHERE contype = 'f' AND conrelid = 'kpi.client_metrics'::regclass
            AND confrelid = 'kpi.clients'::regclass
            AND (SELECT attname FROM pg_attribute WHERE attrelid = conrelid AND attnum = conkey[1])
                = 'workspace'
    """)
    shown = text("""
        SELECT view_name, table_name FROM information_schema.view_column_usage
        WHERE column_name = 'workspace' AND view_schema IN ('public', 'kpi')
            AND view_name IN ('client_metrics', 'client_registry')
    """)
    with house.ours.connect() as connection:
        assert connection.scalar(found) == 1
        assert {tuple(row) for row in connection.execute(shown)} >= {
            ("client_metrics", "client_metrics"),
            ("client_registry", "client_registry"),
            ("client_registry", "clients"),
        }


def test_a_role_that_a_host_lets_read_all_reads_nothing_until_it_is_granted(house: House) -> None:
    def answers_of_role() -> dict[str, Sequence[object]]:
        with house.ours.connect() as connection:
            connection.execute(text(f"SET LOCAL ROLE {house.role}"))
            return answers(connection, OUR_JOIN)

    with pytest.raises(DBAPIError, match="permission denied for view client_metrics"):
        answers_of_role()
    with house.ours.begin() as connection:
        grant_reader(connection, house.role, also_web_api=True)
    assert answers_of_role() == house.before
    for statement in (UPSERT, "DELETE FROM public.client_leads", "SELECT * FROM kpi.sync_log"):
        with house.ours.connect() as connection:
            connection.execute(text(f"SET LOCAL ROLE {house.role}"))
            with pytest.raises(DBAPIError):
                connection.execute(text(statement))


def test_the_old_upsert_is_refused_and_changes_nothing(house: House) -> None:
    with house.ours.connect() as connection, pytest.raises(DBAPIError) as refused:
        connection.execute(text(UPSERT))
    # Its key is no key of ours: a name is a label, which two clients may share.
    assert "no unique or exclusion constraint" in str(refused.value.orig)
    numbers = text(
        "SELECT emails_sent_mtd FROM client_metrics WHERE workspace = 'quay' AND metric_date = :day"
    )
    with house.ours.connect() as connection:
        assert connection.scalar(numbers, {"day": LAST}) != 1


def test_the_counter_of_old_reaches_our_inbox(house: House) -> None:
    with house.ours.begin() as connection:
        connection.execute(text("SELECT public.increment_metric('Quay', 'interested_mtd')"))
        events = text("SELECT workspace, metric, source FROM webhook_events")
        assert [tuple(row) for row in connection.execute(events)] == [
            ("quay", "interested", "function")
        ]
        connection.rollback()


def test_replacing_twice_changes_nothing_more(house: House) -> None:
    with house.ours.begin() as connection:
        assert keep_old_tables(connection, "public").kept == []
        put_views_in_place(connection, "public")


def test_the_history_of_syncs_has_the_columns_and_words_of_the_cron_jobs(engine: Engine) -> None:
    line = {
        "first_date": date(2026, 3, 10),
        "last_date": date(2026, 3, 18),
        "api_calls": 4,
        "seconds": 60,
        "finished_at": AS_OF,
    }
    with engine.begin() as connection:
        names = {"instance": "main", "name": "A", "active": True}
        quay = {**names, "workspace": "quay", "bison_workspace_id": 1}
        mill = {**names, "workspace": "mill", "bison_workspace_id": 2}
        connection.execute(clients.insert(), [quay, mill])
        connection.execute(
            sync_log.insert(),
            [
                {**line, "run_id": "one", "workspace": "quay", "status": "ok", "error": None},
                {**line, "run_id": "two", "workspace": "quay", "status": "ok", "error": None},
                {**line, "run_id": "two", "workspace": "mill", "status": "error", "error": "No."},
            ],
        )
        found = connection.execute(text("SELECT * FROM cron_daily_kpi_sync_history")).mappings()
        rows = [dict(row) for row in found]
    assert list(rows[0]) == [
        *("jobid", "runid", "job_pid", "database", "username", "command", "status"),
        *("return_message", "start_time", "end_time", "duration_seconds"),
    ]
    by_status = {row["status"]: row for row in rows}
    assert by_status["failed"]["return_message"] == "No."
    assert by_status["succeeded"]["end_time"] == AS_OF
    assert by_status["succeeded"]["duration_seconds"] == 60
    assert by_status["succeeded"]["runid"] != by_status["failed"]["runid"]


def test_one_database_is_known_by_whatever_address(house: House, postgres: URL) -> None:
    other = create_engine(postgres.set(database="postgres"))
    with house.ours.connect() as ours, reading(house.ours.url) as same, other.connect() as another:
        assert is_same_database(ours, same)
        assert not is_same_database(ours, another)
    other.dispose()
