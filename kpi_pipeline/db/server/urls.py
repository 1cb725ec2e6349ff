"""Database addresses: as users write them, and as each driver reads them."""

import re
import shlex
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from kpi_pipeline.errors import KpiError

_SCHEMES = ("postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2")
# Prisma and hosts that follow it mark the address of a pooler so. We find out without it.
_POOLER_MARK = "pgbouncer"
# What other libraries take in an address, and what to do here.
_ELSEWHERE = {
    "schema": "set KPI_DATABASE_SCHEMA instead",
    "search_path": "set KPI_DATABASE_SCHEMA instead, or write options=-csearch_path%3DSCHEMA",
    "ssl": "write sslmode=require, or sslmode=verify-full with sslrootcert",
    "prepare_threshold": "leave it out: prepared statements are off behind a pooler",
}
# The libpq of psycopg2, which Dagster uses, may be older than that of psycopg.
_OF_PSYCOPG_ALONE = frozenset(
    {
        "max_protocol_version",
        "min_protocol_version",
        "oauth_client_id",
        "oauth_client_secret",
        "oauth_issuer",
        "oauth_scope",
        "scram_client_key",
        "scram_server_key",
        "sslkeylogfile",
    }
)
_SECRET = ("password", "sslpassword")
_SETTING = re.compile(r"(?P<name>[A-Za-z_][\w.-]*)=(?P<value>.*)", re.DOTALL)


class SessionOptions(NamedTuple):
    """The option `options` of an address: settings of the session, and other words for the server.

    The settings are those of `-c NAME=VALUE` and `--NAME=VALUE`. A word such as `endpoint=NAME` is
    how some hosts are told which server is meant.
    """

    settings: Mapping[str, str]
    words: str


def parse_url(text: str, setting: str) -> URL:
    """Parse a PostgreSQL address as users write it, with `postgres://` or `postgresql://`.

    The result names psycopg 3, the driver of the KPI tables. Each of its options is obeyed by both
    drivers; `pgbouncer=true`, which is none of PostgreSQL's, is dropped.

    Raises:
        KpiError: if `text` is no such address, or one of its options is not known to both drivers;
            the message names `setting`, never a password.
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
    url = url.set(drivername="postgresql+psycopg").difference_update_query([_POOLER_MARK])
    for name in url.query:
        if name not in _known_options():
            what = _ELSEWHERE.get(name, "remove it")
            raise KpiError(
                f"{setting} has the option {name!r}, which PostgreSQL's drivers do not know: "
                f"{what}."
            )
    session_options(url, setting)
    return url


def _known_options() -> set[str]:
    # Imported late: Dagster's page loads this module, and reads no address that has options.
    from psycopg import pq

    every = {it.keyword.decode() for it in pq.Conninfo.get_defaults()}
    return every - _OF_PSYCOPG_ALONE


def session_options(url: URL, setting: str = "The database's address") -> SessionOptions:
    """The option `options`, taken apart.

    Raises:
        KpiError: if it ends in `-c` without a setting, or its quotes are not closed.
    """
    settings, words = {}, []
    given = url.query.get("options", "")
    try:
        # PostgreSQL takes a backslash before a blank, and no quotes.
        parts = iter(shlex.split(" ".join([given] if isinstance(given, str) else given)))
        for part in parts:
            text = next(parts) if part == "-c" else part.removeprefix("-c").removeprefix("--")
            found = _SETTING.fullmatch(text)
            if part.startswith("-") and found:
                settings[found["name"].replace("-", "_").lower()] = found["value"]
            elif part.startswith("-"):
                raise ValueError
            else:
                words.append(part)
    except (ValueError, StopIteration):
        raise KpiError(
            f"{setting} has `options` that cannot be read. Write each as -c NAME=VALUE, with %20 "
            "for a blank and %3D for =."
        ) from None
    return SessionOptions(settings, " ".join(words))


def with_schema(url: URL, schema: str | None) -> URL:
    """The address whose sessions find and create tables in `schema` alone; None: as it is."""
    if schema is None:
        return url
    options = session_options(url)
    settings = {**options.settings, "search_path": f'"{schema}"'}
    written = [f"-c {name}={_escaped(value)}" for name, value in settings.items()]
    return url.update_query_dict({"options": " ".join([options.words, *written]).strip()})


def schema_of(url: URL) -> str | None:
    """The schema in which sessions of this address create tables; None: the server's default."""
    path = session_options(url).settings.get("search_path")
    if path is None:
        return None
    first = path.split(",")[0].strip()
    return first[1:-1] if first.startswith('"') else first.lower()


def _escaped(value: str) -> str:
    return re.sub(r"([\s\\'\"])", r"\\\1", value)


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
    """The address without passwords, options or driver, fit for messages and logs."""
    shown = url.set(drivername="postgresql").difference_update_query([*_SECRET, "options"])
    return shown.render_as_string(hide_password=True)
