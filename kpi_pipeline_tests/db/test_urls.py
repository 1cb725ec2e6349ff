import pytest
from sqlalchemy import make_url

from kpi_pipeline.db.server.urls import dagster_url, for_dagster, for_people, parse_url
from kpi_pipeline.errors import KpiError

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
