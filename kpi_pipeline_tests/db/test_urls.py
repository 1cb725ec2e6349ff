import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg2.extensions import make_dsn, parse_dsn
from pydantic import ValidationError
from sqlalchemy import make_url

from kpi_pipeline.db.server.addresses import dagster_address
from kpi_pipeline.db.server.urls import (
    _known_options,
    dagster_url,
    for_dagster,
    for_people,
    parse_url,
    schema_of,
    session_options,
    with_schema,
)
from kpi_pipeline.errors import KpiError
from kpi_pipeline.settings import Settings

PLACE = "kpi:hunter2@db.example.com:5433/kpi"


def refused(text: str) -> str:
    with pytest.raises(KpiError) as error:
        parse_url(text, "KPI_DATABASE_URL")
    return str(error.value)


@pytest.mark.parametrize(
    "scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"]
)
def test_an_address_is_read_as_people_write_it(scheme: str) -> None:
    url = parse_url(f"{scheme}://{PLACE}", "KPI_DATABASE_URL")
    assert url.render_as_string(hide_password=False) == f"postgresql+psycopg://{PLACE}"


def test_options_of_an_address_are_kept() -> None:
    url = parse_url(f"postgres://{PLACE}?sslmode=require", "KPI_DATABASE_URL")
    assert url.query == {"sslmode": "require"}


REMEDY = "Write KPI_DATABASE_URL as postgresql://USER:PASSWORD@HOST:PORT/DATABASE."


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            f"mysql://{PLACE}",
            f"KPI_DATABASE_URL names 'mysql', but the pipeline needs PostgreSQL. {REMEDY}",
        ),
        (
            "sqlite:///kpi.db",
            f"KPI_DATABASE_URL names 'sqlite', but the pipeline needs PostgreSQL. {REMEDY}",
        ),
        ("postgresql://kpi:hunter2@db", f"KPI_DATABASE_URL names no database. {REMEDY}"),
        ("postgresql://kpi:hunter2@db/", f"KPI_DATABASE_URL names no database. {REMEDY}"),
        ("hunter2", f"KPI_DATABASE_URL is no database address. {REMEDY}"),
        (
            "postgresql://kpi:hunter2@db:port/kpi",
            f"KPI_DATABASE_URL is no database address. {REMEDY}",
        ),
        (
            "postgresql://kpi:hun@hunter2@db/kpi",
            "KPI_DATABASE_URL holds one @ too many: in a user or password, write it as %40.",
        ),
        (
            "postgresql://kpi:hun@hun/hunter2@db/kpi",
            "KPI_DATABASE_URL holds one @ too many: in a user or password, write it as %40.",
        ),
    ],
)
def test_a_wrong_address_is_refused_without_its_password(text: str, sentence: str) -> None:
    assert refused(text) == sentence
    assert "hunter2" not in sentence


def test_an_escaped_password_is_read_as_it_is_meant() -> None:
    assert parse_url("postgresql://kpi:hun%40ter@db/kpi", "KPI_DATABASE_URL").password == "hun@ter"


def test_dagsters_database_stands_beside_ours() -> None:
    assert dagster_url(make_url(f"postgresql+psycopg://{PLACE}?sslmode=require")) == make_url(
        f"postgresql+psycopg://{PLACE}_dagster?sslmode=require"
    )


def test_dagsters_address_names_psycopg2_and_keeps_the_password() -> None:
    url = parse_url(f"postgres://{PLACE}", "KPI_DATABASE_URL")
    assert for_dagster(url) == f"postgresql+psycopg2://{PLACE}"
    assert make_url(for_dagster(url)).get_driver_name() == "psycopg2"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgres://{PLACE}", "postgresql://kpi:***@db.example.com:5433/kpi"),
        ("postgresql://kpi@db/kpi", "postgresql://kpi@db/kpi"),
        (
            "postgresql://kpi@db/kpi?password=hunter2&sslpassword=hunter2&sslmode=require",
            "postgresql://kpi@db/kpi?sslmode=require",
        ),
    ],
)
def test_people_are_shown_the_address_without_its_password(text: str, shown: str) -> None:
    assert for_people(parse_url(text, "KPI_DATABASE_URL")) == shown


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("foo=bar", "has the option 'foo', which PostgreSQL's drivers do not know: remove it."),
        ("connection_limit=1", "has the option 'connection_limit', which"),
        ("schema=kpi", "do not know: set KPI_DATABASE_SCHEMA instead."),
        (
            "ssl=true",
            "do not know: write sslmode=require, or sslmode=verify-full with sslrootcert.",
        ),
        # Of a newer libpq than that of Dagster's driver.
        ("oauth_scope=x", "has the option 'oauth_scope', which"),
        ("options=-c", "has `options` that cannot be read."),
        ("options=-csearch_path", "has `options` that cannot be read."),
    ],
)
def test_an_option_that_one_of_both_drivers_would_not_obey_is_refused_by_name(
    option: str, sentence: str
) -> None:
    said = refused(f"postgresql://{PLACE}?{option}")
    assert said.startswith("KPI_DATABASE_URL has ")
    assert sentence in said
    assert "hunter2" not in said


def test_both_drivers_know_each_option_that_is_taken() -> None:
    for name in _known_options():
        assert parse_dsn(make_dsn(**{name: "1"})) == {name: "1"}
        assert conninfo_to_dict(make_conninfo("", **{name: "1"})) == {name: "1"}


def test_the_mark_of_a_pooler_is_dropped() -> None:
    url = parse_url(f"postgresql://{PLACE}?pgbouncer=true&sslmode=require", "KPI_DATABASE_URL")
    assert url.query == {"sslmode": "require"}


@pytest.mark.parametrize(
    ("options", "settings", "words"),
    [
        ("-csearch_path=kpi", {"search_path": "kpi"}, ""),
        ("-c search_path=kpi --lock-timeout=5s", {"search_path": "kpi", "lock_timeout": "5s"}, ""),
        (r"-c search_path=a,\ b", {"search_path": "a, b"}, ""),
        ("endpoint=ep-1 -cjit=off", {"jit": "off"}, "endpoint=ep-1"),
    ],
)
def test_options_are_settings_of_the_session_and_words_for_the_host(
    options: str, settings: dict[str, str], words: str
) -> None:
    url = make_url(f"postgresql://{PLACE}").update_query_dict({"options": options})
    assert session_options(url) == (settings, words)


def test_a_schema_replaces_the_search_path_of_an_address_and_nothing_else() -> None:
    url = parse_url(
        f"postgres://{PLACE}?options=-csearch_path%3Da%20-cjit%3Doff", "KPI_DATABASE_URL"
    )
    ours = with_schema(url, "kpi")
    assert session_options(ours).settings == {"search_path": '"kpi"', "jit": "off"}
    assert with_schema(ours, "kpi") == ours
    assert (schema_of(url), schema_of(ours), with_schema(url, None)) == ("a", "kpi", url)
    assert for_people(ours) == "postgresql://kpi:***@db.example.com:5433/kpi"


def test_where_dagsters_tables_are() -> None:
    ours, direct = "postgresql://kpi@pooler:6543/kpi", "postgresql://kpi@db/kpi"

    def place(**settings: str) -> str:
        chosen = Settings.model_validate({"database_url": ours, **settings})
        url = dagster_address(chosen)
        return f"{url.host} {url.database} {schema_of(url)}"

    assert place() == "pooler kpi_dagster None"
    assert place(database_schema="kpi") == "pooler kpi_dagster None"
    assert place(database_direct_url=direct) == "db kpi_dagster None"
    assert place(dagster_database_schema="ticks") == "pooler kpi ticks"
    assert place(dagster_database_schema="ticks", database_direct_url=direct) == "db kpi ticks"
    assert place(dagster_database_url="postgresql://d@db/other") == "db other None"
    named = f"{ours}?options=-csearch_path%3Dticks"
    assert place(dagster_database_url=named) == "pooler kpi ticks"
    # In the KPI database, the two would have tables of the same name.
    assert place(dagster_database_url=ours) == "pooler kpi dagster"
    assert place(dagster_database_url=direct, database_direct_url=direct) == "db kpi dagster"


@pytest.mark.parametrize("name", ["Kpi", "pg_kpi", "a-b", 'a"b', "1a", ""])
def test_a_schema_has_a_plain_name(name: str) -> None:
    with pytest.raises(ValidationError, match="is no name of a schema"):
        Settings.model_validate({"database_schema": name})
