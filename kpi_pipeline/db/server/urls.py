"""Database addresses: as users write them, and as each driver reads them."""

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from kpi_pipeline.errors import KpiError

_SCHEMES = ("postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2")


def parse_url(text: str, setting: str) -> URL:
    """Parse a PostgreSQL address as users write it, with `postgres://` or `postgresql://`.

    The result names psycopg 3, the driver of the KPI tables.

    Raises:
        KpiError: if `text` is no such address; the message names `setting`, never the password.
    """
    remedy = f"Write {setting} as postgresql://USER:PASSWORD@HOST:PORT/DATABASE."
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise KpiError(f"{setting} is no database address. {remedy}") from None
    if url.drivername not in _SCHEMES:
        raise KpiError(
            f"{setting} names {url.drivername!r}, but the pipeline needs PostgreSQL. {remedy}"
        )
    if not url.database:
        raise KpiError(f"{setting} names no database. {remedy}")
    if "@" in f"{url.host}{url.database}":
        # It belongs to the password, whose rest would be shown as the host's name.
        raise KpiError(f"{setting} holds one @ too many: in a user or password, write it as %40.")
    return url.set(drivername="postgresql+psycopg")


def dagster_url(kpi_url: URL) -> URL:
    """The database of Dagster's tables, on the server of the KPI database."""
    return kpi_url.set(database=f"{kpi_url.database}_dagster")


def for_dagster(url: URL) -> str:
    """The address with its password, for dagster-postgres.

    It names the driver: SQLAlchemy 2.1 uses psycopg 3 for a bare `postgresql://`, with which the
    `NOTIFY` of dagster-postgres fails.
    """
    return url.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)


def for_people(url: URL) -> str:
    """The address without passwords or driver, fit for messages and logs."""
    shown = url.set(drivername="postgresql").difference_update_query(["password", "sslpassword"])
    return shown.render_as_string(hide_password=True)
