"""Database addresses: what a user writes, and what each driver wants to read."""

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from kpi_pipeline.errors import KpiError

_SCHEMES = ("postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2")


def parse_url(text: str, setting: str) -> URL:
    """Read a PostgreSQL address as users write it, `postgres://` and `postgresql://` alike.

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
        # It belongs to the password, the rest of which would be shown as the host's name.
        raise KpiError(f"{setting} holds one @ too many: in a user or password, write it as %40.")
    return url.set(drivername="postgresql+psycopg")


def dagster_url(kpi_url: URL) -> URL:
    """The database beside the KPI one, on the same server, that holds Dagster's tables."""
    return kpi_url.set(database=f"{kpi_url.database}_dagster")


def for_dagster(url: URL) -> str:
    """The address with its password, as dagster-postgres must read it.

    SQLAlchemy 2.1 takes a bare `postgresql://` for psycopg 3, on which dagster-postgres fails at
    its `NOTIFY`; so the driver is named.
    """
    return url.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)


def for_people(url: URL) -> str:
    """The address without passwords or driver, fit for messages and logs."""
    shown = url.set(drivername="postgresql").difference_update_query(["password", "sslpassword"])
    return shown.render_as_string(hide_password=True)
